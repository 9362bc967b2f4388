"""The tutorial's CNN classifier in Keras: the worker of cnn_keras.py.

Runs in an interpreter that has TensorFlow and imports nothing of this project:
python keras_cnn.py TRAIN.npy TEST.npy BATCH_SIZE, arrays uint8 [N, 32, 32, 3], labels in
NAME.npy.labels.npy. Each line on stdin is a job in `JOBS`; the answer on stdout is the seconds and
a value.
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
TRAIN_LABELS, TEST_LABELS = (
    np.load(f"{path}.labels.npy", allow_pickle=False) for path in sys.argv[1:3]
)
BATCH_SIZE = int(sys.argv[3])


def network() -> keras.Model:
    """Returns the network, compiled as in the tutorial."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


MODELS = {"fit": network(), "loop": network()}


@tf.function
def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Makes a step; returns the loss."""
    model = MODELS["loop"]
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss


def fit(count: int) -> None:
    """Trains an epoch of the first `count` images as the tutorial does: `model.fit`."""
    MODELS["fit"].fit(TRAIN[:count], TRAIN_LABELS[:count], batch_size=BATCH_SIZE, verbose=0)


def loop(count: int) -> None:
    """Trains an epoch by one compiled step over NumPy batches, the fastest plain TensorFlow."""
    order = np.random.permutation(count)
    for start in range(0, count // BATCH_SIZE * BATCH_SIZE, BATCH_SIZE):
        index = order[start : start + BATCH_SIZE]
        loss = step(TRAIN[index], TRAIN_LABELS[index])
    loss.numpy()


def accuracy(name: str) -> float:
    """Computes the accuracy of a model on the test set."""
    logits = MODELS[name].predict(TEST, batch_size=500, verbose=0)
    return float(np.mean(np.argmax(logits, axis=1) == TEST_LABELS))


JOBS = {
    "fit": lambda: fit(len(TRAIN)),
    "loop": lambda: loop(len(TRAIN)),
    "test fit": lambda: accuracy("fit"),
    "test loop": lambda: accuracy("loop"),
}
fit(4 * BATCH_SIZE), loop(4 * BATCH_SIZE)  # compiles on four batches, then starts again
for model in MODELS.values():
    model.set_weights(network().get_weights())
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    value = JOBS[line.strip()]()
    print(time.perf_counter() - start, value or 0.0, flush=True)
