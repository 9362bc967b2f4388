"""The tutorial's GAN of dense layers on MNIST, with its own settings.

As it was meant: both networks see images of batch statistics (in the tutorial the discriminator
sees those of running averages, the generator trains on others), in one compiled step.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gan_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      about 9 minutes for 15,000 steps (16 epochs), in two pieces beside other programs (30 to
          45 steps/s)
Number    eval/fd_cnn_mnist_6d53cf07_10k 33.2, precision 0.795, recall 0.481, coverage 0.742, seed
          0; 243, 93.0, 61.1 and 47.1 after 3,000, 6,000, 9,000 and 12,000 steps, so still
          falling; MNIST's own test images have 0.86. Precision, recall and coverage are against
          the first 10,000 training images
Paper     Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
"""

from configs.presets import on_mnist, train_for, variants
from experiments.gan.gan import default_config


@variants
def get_config():
    config = on_mnist(default_config())
    train_for(config, 15_000, batch_size=64, log=100, every=3000)  # 16 epochs
    config.eval.num_samples_in_loop = 10_000
    config.sample.batch_size = 500
    config.checkpoint.best_metric = "eval/fd_cnn_mnist_6d53cf07_10k"
    return config
