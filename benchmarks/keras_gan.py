"""The tutorial's GAN in Keras, in three forms: the worker of gan_keras.py.

Runs in an interpreter that has TensorFlow and imports nothing of this project:
python keras_gan.py TRAIN.npy TEST.npy BATCH_SIZE, arrays uint8 [N, 28, 28, 1]. Each line on stdin
is a job, such as "train written 30" or "draw compiled"; the answer on stdout is the seconds and 0.
"""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

TRAIN = np.load(sys.argv[1], allow_pickle=False).astype(np.float32) / 127.5 - 1
BATCH_SIZE = int(sys.argv[3])
LATENT = 100


def adam() -> keras.optimizers.Adam:
    """Returns the optimizer of a network."""
    return keras.optimizers.Adam(2e-4, 0.5)


def networks(logits: bool = False) -> tuple[keras.Model, keras.Model]:
    """Returns the tutorial's generator and discriminator."""
    generator = [keras.Input((LATENT,))]
    for width in (256, 512, 1024):
        generator.append(layers.Dense(width))
        generator.append(layers.LeakyReLU(negative_slope=0.2))
        generator.append(layers.BatchNormalization(momentum=0.8))
    generator += [layers.Dense(784, activation="tanh"), layers.Reshape((28, 28, 1))]
    discriminator = [keras.Input((28, 28, 1)), layers.Flatten()]
    for width in (512, 256):
        discriminator += [layers.Dense(width), layers.LeakyReLU(negative_slope=0.2)]
    discriminator.append(layers.Dense(1, activation=None if logits else "sigmoid"))
    return keras.Sequential(generator), keras.Sequential(discriminator)


class Written:
    """Training as in the tutorial: `predict`, and three calls of `train_on_batch`."""

    def __init__(self):
        self.generator, self.discriminator = networks()
        self.discriminator.compile(loss="binary_crossentropy", optimizer=adam())
        self.discriminator.trainable = False
        z = keras.Input((LATENT,))
        self.combined = keras.Model(z, self.discriminator(self.generator(z)))
        self.combined.compile(loss="binary_crossentropy", optimizer=adam())
        self.discriminator.trainable = True

    def train(self, steps: int) -> None:
        """Makes some steps."""
        ones, zeros = np.ones((BATCH_SIZE, 1)), np.zeros((BATCH_SIZE, 1))
        for _ in range(steps):
            real = TRAIN[np.random.randint(0, len(TRAIN), BATCH_SIZE)]
            fake = self.generator.predict(np.random.normal(0, 1, (BATCH_SIZE, LATENT)), verbose=0)
            self.discriminator.train_on_batch(real, ones)
            self.discriminator.train_on_batch(fake, zeros)
            self.combined.train_on_batch(np.random.normal(0, 1, (BATCH_SIZE, LATENT)), ones)

    def draw(self) -> None:
        """Draws 25 images."""
        self.generator.predict(np.random.normal(0, 1, (25, LATENT)), verbose=0)


bce = tf.nn.sigmoid_cross_entropy_with_logits


def mean_loss(logits: tf.Tensor, target: float) -> tf.Tensor:
    """Computes the mean cross-entropy of logits for one target."""
    return tf.reduce_mean(bce(target * tf.ones_like(logits), logits))


class Compiled:
    """The same as one `tf.function` step that updates both networks by gradients of one pass."""

    def __init__(self):
        self.generator, self.discriminator = networks(logits=True)
        self.optimizers = adam(), adam()
        for optimizer, network in zip(self.optimizers, (self.generator, self.discriminator)):
            optimizer.build(network.trainable_variables)
        self.step = tf.function(self._step)
        self.generate = tf.function(lambda z: self.generator(z, training=False))

    def _step(self, real):
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = self.generator(tf.random.normal((BATCH_SIZE, LATENT)), training=True)
            r = self.discriminator(real, training=True)
            f = self.discriminator(fake, training=True)
            g_loss, d_loss = mean_loss(f, 1.0), mean_loss(r, 1.0) + mean_loss(f, 0.0)
        self._update(0, g_tape, g_loss, self.generator)
        self._update(1, d_tape, d_loss, self.discriminator)
        return g_loss

    def _update(self, number, tape, loss, network):
        grads = tape.gradient(loss, network.trainable_variables)
        self.optimizers[number].apply_gradients(zip(grads, network.trainable_variables))

    def train(self, steps: int) -> None:
        """Makes some steps."""
        for _ in range(steps):
            loss = self.step(TRAIN[np.random.randint(0, len(TRAIN), BATCH_SIZE)])
        loss.numpy()

    def draw(self) -> None:
        """Draws 25 images."""
        self.generate(tf.random.normal((25, LATENT))).numpy()


class Alternating(Compiled):
    """One `tf.function` step, the generator after the discriminator, as in ours."""

    def _step(self, real):
        with tf.GradientTape() as g_tape:
            fake = self.generator(tf.random.normal((BATCH_SIZE, LATENT)), training=True)
        with tf.GradientTape() as d_tape:
            r, f = self.discriminator(real, training=True), self.discriminator(fake, training=True)
            d_loss = mean_loss(r, 1.0) + mean_loss(f, 0.0)
        self._update(1, d_tape, d_loss, self.discriminator)
        with g_tape:
            g_loss = mean_loss(self.discriminator(fake, training=True), 1.0)
        self._update(0, g_tape, g_loss, self.generator)
        return g_loss


forms = {"written": Written(), "compiled": Compiled(), "alternating": Alternating()}
for gan in forms.values():
    gan.train(2)
    gan.draw()
print("ready", flush=True)
for line in sys.stdin:
    job, form, *number = line.split()
    start = time.perf_counter()
    getattr(forms[form], job)(*map(int, number))
    print(time.perf_counter() - start, 0.0, flush=True)
