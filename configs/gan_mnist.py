"""The tutorial's GAN of dense layers on MNIST, with its own settings.

As it was meant: both networks see images of batch statistics (in the tutorial the discriminator
sees those of running averages, the generator trains on others), in one compiled step.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gan_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      13 minutes for 15,000 steps (16 epochs), 1,450 images/s, beside other programs
Number    eval/fd_cnn_mnist_6d53cf07_10k 31.8, precision 0.789, recall 0.489, coverage 0.734, seed
          0; 230, 101, 52.2 and 43.2 after 3,000, 6,000, 9,000 and 12,000 steps, so still falling;
          MNIST's own test images have 0.86. (33.2 with JAX 0.10.2, Python 3.11.)
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
