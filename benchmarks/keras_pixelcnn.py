"""The tutorial's PixelCNN in Keras: the worker of pixelcnn_keras.py.

Its sizes: one 7x7 and seven 3x3 convolutions of 64 channels, not masked, and a 256-way softmax.
Runs in an interpreter that has TensorFlow and imports nothing of this project:
python keras_pixelcnn.py TRAIN.npy TEST.npy BATCH_SIZE, arrays uint8 [N, 28, 28, 1]. Each line on
stdin is a job in `JOBS`; the answer on stdout is the seconds and 0.
"""

import os
import sys
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

PIXELS = np.load(sys.argv[1], allow_pickle=False)[:8192]
TRAIN, BATCH_SIZE = PIXELS.astype(np.float32) / 255, int(sys.argv[3])

MODEL = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(64, 7, padding="same", activation="relu"),
        *[layers.Conv2D(64, 3, padding="same", activation="relu") for _ in range(7)],
        layers.Conv2D(256, 1),
    ]
)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MODEL.compile(optimizer="adam", loss=LOSS)
compiled = tf.function(MODEL)


def fit(batches: int) -> None:
    """Trains on the first batches as the tutorial does: `model.fit`."""
    count = batches * BATCH_SIZE
    MODEL.fit(TRAIN[:count], PIXELS[:count, ..., 0], batch_size=BATCH_SIZE, verbose=0)


def draw(forward: Callable[[np.ndarray], np.ndarray | tf.Tensor]) -> None:
    """Draws one image, by a full forward pass for each pixel."""
    image = np.zeros((1, 28, 28, 1), np.float32)
    for i in range(28):
        for j in range(28):
            logits = np.asarray(forward(image))[0, i, j].astype(np.float64)
            p = np.exp(logits - logits.max())
            image[0, i, j, 0] = np.random.choice(256, p=p / p.sum()) / 255


JOBS = {
    "fit": lambda: fit(10),
    "predict": lambda: draw(lambda x: MODEL.predict(x, verbose=0)),
    "compiled": lambda: draw(lambda x: compiled(tf.constant(x))),
}
fit(2), MODEL.predict(TRAIN[:1], verbose=0), compiled(tf.constant(TRAIN[:1]))
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    JOBS[line.strip()]()
    print(time.perf_counter() - start, 0.0, flush=True)
