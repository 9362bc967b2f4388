"""The tutorial's VAE in Keras, as a worker that takes orders line by line; see vae_keras.py.

Runs in an interpreter that has TensorFlow and imports nothing of this project:
python keras_vae.py TRAIN.npy TEST.npy BATCH_SIZE, arrays uint8 [N, 28, 28, 1].
"""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

TRAIN, TEST = (np.load(path, allow_pickle=False).astype(np.float32) / 255 for path in sys.argv[1:3])
BATCH_SIZE = int(sys.argv[3])
TRAIN = TRAIN[: len(TRAIN) // BATCH_SIZE * BATCH_SIZE]


class VAE(keras.Model):
    """The tutorial's networks and loss.

    Args:
      kl_reduction: tf.reduce_mean as the tutorial writes it (over the batch and the latent
        dimensions, so half of the KL), or tf.reduce_sum over the dimensions, as it was meant.
    """

    def __init__(self, kl_reduction):
        super().__init__()
        self.kl_reduction = kl_reduction
        image = keras.Input((28, 28, 1))
        h = layers.Conv2D(32, 3, 2, "same", activation="relu")(image)
        h = layers.Conv2D(64, 3, 2, "same", activation="relu")(h)
        h = layers.Dense(16, activation="relu")(layers.Flatten()(h))
        self.encoder = keras.Model(image, [layers.Dense(2)(h), layers.Dense(2)(h)])
        z = keras.Input((2,))
        h = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(z))
        h = layers.Conv2DTranspose(64, 3, 2, "same", activation="relu")(h)
        h = layers.Conv2DTranspose(32, 3, 2, "same", activation="relu")(h)
        self.decoder = keras.Model(z, layers.Conv2DTranspose(1, 3, padding="same")(h))
        self.compile(optimizer=keras.optimizers.Adam(1e-3))
        self.optimizer.build(self.trainable_variables)

    def terms(self, x):
        """Reconstruction [B] and KL of each latent [B, 2], in nats, one posterior sample."""
        mean, log_variance = self.encoder(x)
        z = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
        bce = tf.nn.sigmoid_cross_entropy_with_logits(x, self.decoder(z))
        kl = -0.5 * (1 + log_variance - mean**2 - tf.exp(log_variance))
        return tf.reduce_sum(bce, (1, 2, 3)), kl

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            recon, kl = self.terms(x)
            loss = tf.reduce_mean(recon) + tf.reduce_mean(self.kl_reduction(kl, axis=1))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables))
        return {"loss": loss}


tutorial, meant = VAE(tf.reduce_mean), VAE(tf.reduce_sum)
tutorial_step, meant_step = tf.function(tutorial.train_step), tf.function(meant.train_step)
evaluate = {name: tf.function(m.terms) for name, m in (("fit", tutorial), ("loop", meant))}


def fit(epochs=1):
    """An epoch as the tutorial trains: `model.fit`."""
    tutorial.fit(TRAIN, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


def loop():
    """An epoch of one compiled step on tensors, the fastest plain TensorFlow."""
    order = np.random.permutation(len(TRAIN))
    for start in range(0, len(TRAIN), BATCH_SIZE):
        out = meant_step(TRAIN[order[start : start + BATCH_SIZE]])
    out["loss"].numpy()


def draw():
    """The 30x30 manifold as the tutorial draws it: one `predict` a point."""
    for a in np.linspace(-2, 2, 30):
        for b in np.linspace(-2, 2, 30):
            tutorial.decoder.predict(np.array([[a, b]], np.float32), verbose=0)


def neg_elbo(name):
    """-ELBO of the test set in nats, the KL summed, whatever was trained."""
    total = 0.0
    for start in range(0, len(TEST), 500):
        recon, kl = evaluate[name](TEST[start : start + 500])
        total += float(tf.reduce_sum(recon)) + float(tf.reduce_sum(kl))
    return total / len(TEST)


JOBS = {
    "fit": fit,
    "loop": loop,
    "draw": draw,
    "test fit": lambda: neg_elbo("fit"),
    "test loop": lambda: neg_elbo("loop"),
}
TRAIN_ALL, TRAIN = TRAIN, TRAIN[: 4 * BATCH_SIZE]
fit(), loop()  # compile on four batches, then forget what they taught
tutorial.set_weights(VAE(tf.reduce_mean).get_weights())
meant.set_weights(VAE(tf.reduce_sum).get_weights())
TRAIN = TRAIN_ALL
print("ready", flush=True)
for order in sys.stdin:
    began = time.perf_counter()
    value = JOBS[order.strip()]()
    print(time.perf_counter() - began, value or 0.0, flush=True)
