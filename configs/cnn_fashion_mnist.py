"""The LeNet-class classifier of `configs/cnn_mnist.py` on Fashion-MNIST.

Command   python launch.py --mode=prepare --config.data.name=fashion_mnist   (once)
          python launch.py --config=configs/cnn_fashion_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      -
Number    still to be measured
Paper     LeCun et al. 1998, Gradient-based learning applied to document recognition
"""

from configs import cnn_mnist
from configs.presets import variants


@variants
def get_config():
    config = cnn_mnist.get_config()
    config.data.name = "fashion_mnist"
    return config
