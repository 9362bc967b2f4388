"""The tutorials' VAEs in Keras: the worker of vae_keras.py.

Runs in an interpreter that has TensorFlow and imports nothing of this project:
python keras_vae.py TRAIN.npy TEST.npy BATCH_SIZE, arrays uint8 [N, 28, 28, 1] or [N, 64, 64, 3].
Each line on stdin is a job in `JOBS`; the answer on stdout is the seconds and a value.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

TRAIN, TEST = (np.load(path, allow_pickle=False).astype(np.float32) / 255 for path in sys.argv[1:3])
BATCH_SIZE = int(sys.argv[3])
TRAIN = TRAIN[: len(TRAIN) // BATCH_SIZE * BATCH_SIZE]


def networks_28() -> tuple[keras.Model, keras.Model]:
    """Returns encoder and decoder of the tutorial with two latents."""
    image = keras.Input((28, 28, 1))
    h = layers.Conv2D(32, 3, 2, "same", activation="relu")(image)
    h = layers.Conv2D(64, 3, 2, "same", activation="relu")(h)
    h = layers.Dense(16, activation="relu")(layers.Flatten()(h))
    encoder = keras.Model(image, [layers.Dense(2)(h), layers.Dense(2)(h)])
    z = keras.Input((2,))
    h = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(z))
    h = layers.Conv2DTranspose(64, 3, 2, "same", activation="relu")(h)
    h = layers.Conv2DTranspose(32, 3, 2, "same", activation="relu")(h)
    return encoder, keras.Model(z, layers.Conv2DTranspose(1, 3, padding="same")(h))


def networks_64() -> tuple[keras.Model, keras.Model]:
    """Returns those of the tutorial with 64x64 colour pictures.

    Corrected: they have a posterior, and the decoder ends at 64x64.
    """

    def norm(h):
        return layers.LeakyReLU(negative_slope=0.2)(layers.BatchNormalization(momentum=0.9)(h))

    image = keras.Input((64, 64, 3))
    h = norm(layers.Conv2D(64, 4, 2, "same")(image))
    h = layers.Flatten()(norm(layers.Conv2D(128, 4, 2, "same")(h)))
    encoder = keras.Model(image, [layers.Dense(128)(h), layers.Dense(128)(h)])
    z = keras.Input((128,))
    h = norm(layers.Reshape((4, 4, 256))(layers.Dense(4 * 4 * 256)(z)))
    for features in (128, 64, 32):
        h = norm(layers.Conv2DTranspose(features, 4, 2, "same")(h))
    return encoder, keras.Model(z, layers.Conv2DTranspose(3, 4, 2, "same")(h))


def bernoulli(x: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Computes -log p(x | z) of a Bernoulli likelihood, in nats, [B]."""
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, outputs), (1, 2, 3))


def normal(x: tf.Tensor, outputs: tf.Tensor, scale: float = 0.1) -> tf.Tensor:
    """Computes -log p(x | z) of a normal likelihood, in nats, [B]."""
    constant = float(np.log(scale * np.sqrt(2 * np.pi)))
    return tf.reduce_sum(0.5 * ((x - outputs) / scale) ** 2 + constant, (1, 2, 3))


SMALL = TRAIN.shape[1:] == (28, 28, 1)


class VAE(keras.Model):
    """The tutorial's networks and loss.

    Args:
      kl_reduction: over the latent dimensions: tf.reduce_mean as the tutorial writes it, which is
        half of the KL, or tf.reduce_sum.
    """

    def __init__(self, kl_reduction: Callable[..., tf.Tensor]):
        super().__init__()
        self.kl_reduction = kl_reduction
        self.encoder, self.decoder = networks_28() if SMALL else networks_64()
        self.compile(optimizer=keras.optimizers.Adam(1e-3))
        self.optimizer.build(self.trainable_variables)

    def terms(self, x: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes reconstruction [B] and KL of each latent [B, D], in nats, by one sample."""
        mean, log_variance = self.encoder(x, training=training)
        z = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
        outputs = self.decoder(z, training=training)
        kl = -0.5 * (1 + log_variance - mean**2 - tf.exp(log_variance))
        return (bernoulli if SMALL else normal)(x, outputs), kl

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Makes a step, for `fit` and for `loop`."""
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            recon, kl = self.terms(x, training=True)
            loss = tf.reduce_mean(recon) + tf.reduce_mean(self.kl_reduction(kl, axis=1))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables))
        return {"loss": loss}


# The tutorial with 64x64 pictures has no KL to take the mean of.
WRITTEN = tf.reduce_mean if SMALL else tf.reduce_sum
tutorial, corrected = VAE(WRITTEN), VAE(tf.reduce_sum)
corrected_step = tf.function(corrected.train_step)
evaluate = {name: tf.function(m.terms) for name, m in (("fit", tutorial), ("loop", corrected))}


def fit() -> None:
    """Trains an epoch as the tutorial does: `model.fit`."""
    tutorial.fit(TRAIN, batch_size=BATCH_SIZE, verbose=0)


def loop() -> None:
    """Trains an epoch by one compiled step over NumPy batches, the fastest plain TensorFlow."""
    order = np.random.permutation(len(TRAIN))
    for start in range(0, len(TRAIN), BATCH_SIZE):
        out = corrected_step(TRAIN[order[start : start + BATCH_SIZE]])
    out["loss"].numpy()


def draw() -> None:
    """Draws 25 samples, by one `predict`."""
    z = np.random.normal(size=(25, *tutorial.decoder.input_shape[1:])).astype(np.float32)
    tutorial.decoder.predict(z, verbose=0)


def manifold() -> None:
    """Draws the 30x30 manifold as the tutorial does: one `predict` for each point."""
    for a in np.linspace(-2, 2, 30):
        for b in np.linspace(-2, 2, 30):
            tutorial.decoder.predict(np.array([[a, b]], np.float32), verbose=0)


def neg_elbo(name: str) -> float:
    """Computes the -ELBO of the test set in nats, with the KL summed for either loss."""
    total = 0.0
    for start in range(0, len(TEST), 500):
        recon, kl = evaluate[name](TEST[start : start + 500])
        total += float(tf.reduce_sum(recon)) + float(tf.reduce_sum(kl))
    return total / len(TEST)


JOBS = {
    "fit": fit,
    "loop": loop,
    "draw": draw,
    "manifold": manifold,
    "test fit": lambda: neg_elbo("fit"),
    "test loop": lambda: neg_elbo("loop"),
}
TRAIN_ALL, TRAIN = TRAIN, TRAIN[: 4 * BATCH_SIZE]
fit(), loop(), draw()  # compiles on four batches, then starts again
tutorial.set_weights(VAE(WRITTEN).get_weights())
corrected.set_weights(VAE(tf.reduce_sum).get_weights())
TRAIN = TRAIN_ALL
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    value = JOBS[line.strip()]()
    print(time.perf_counter() - start, value or 0.0, flush=True)
