"""The tutorial's convolutional classifier on CIFAR-10: 122,570 parameters.

Conv 32, pool, Conv 64, pool, Conv 64, Dense 64, Dense 10; Adam; cross-entropy on logits.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/cnn_cifar10.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      287 s for 10 epochs (15,625 steps), 1,937 images/s; 0.86 GB resident at most
Number    eval/accuracy 0.720, eval/nll_nats 0.890, calibration error 0.070, seed 0; the 10,000 test
          images. Published for the tutorial: 70 to 71 %. It overfits from epoch 6 on (nll 0.84).
          Pinned as the feature net cnn_cifar10.
Paper     LeCun et al. 1998, Gradient-based learning applied to document recognition
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.classifier.classifier import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config(), flip="none", num_samples=0)
    train_for(config, 15_625, batch_size=32, log=125, every=3_125, sample=0)  # 10 epochs
    config.model = NETWORKS.select("cnn")
    return config
