"""The LeNet-class classifier of `configs/cnn_mnist.py` on digits.

Command   python launch.py --config=configs/cnn_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      50 s for 1,000 steps, 2,895 images/s
Number    eval/accuracy 0.958, eval/nll_nats 0.192, seed 0; the 382 test images, of other writers
          than the training images. Pinned as the feature net cnn_digits.
Paper     LeCun et al. 1998, Gradient-based learning applied to document recognition
"""

from configs import cnn_mnist
from configs.presets import variants


@variants
def get_config():
    config = cnn_mnist.get_config()
    config.data.name = "digits"
    config.num_train_steps = 1_000
    return config
