"""The tutorial's GAN of dense layers on MNIST, with its own settings.

As it was meant: both players see images of batch statistics (in the tutorial the discriminator sees
those of running averages, the generator trains on others), in one compiled step.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gan_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      still to be measured
Number    still to be measured
Paper     Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
"""

from experiments.config import apply_arg
from experiments.gan import gan_config


def get_config(arg=""):
    config = gan_config()
    config.batch_size = 64
    config.num_train_steps = 30_000  # as the tutorial; 32 epochs
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 3000
    config.data.name = "mnist"
    config.eval.num_samples = config.eval.num_samples_in_loop = 10_000
    config.sample.batch_size = 500
    config.checkpoint.best_metric = "eval/fd_cnn_mnist_6d53cf07_10k"
    smoke = {
        "model.generator_features": (16, 32),
        "model.discriminator_features": (32, 16),
        "checkpoint.best_metric": "",
    }
    return apply_arg(config, arg, smoke)
