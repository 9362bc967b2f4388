"""The dense layers of `gan_mnist` with the strongest loss here: relativistic, R1 and R2.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/rgan_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      of 15,000 steps still to be measured; about 6 minutes for 3,982 beside other programs
Number    of 15,000 steps still to be measured; eval/fd_cnn_mnist_6d53cf07_10k 192 after 1,500
          steps and 98.5 after 3,000, seed 0 (`gan_mnist`: 243 after 3,000)
Paper     Huang et al. 2024, https://arxiv.org/abs/2501.05441
"""

from configs import gan_mnist
from experiments.config import apply_arg


def get_config(arg=""):
    config = gan_mnist.get_config()
    config.objective.loss = "relativistic"
    config.objective.r1 = config.objective.r2 = 1.0
    config.optim.b1, config.optim.b2 = 0.0, 0.99
    config.ema.decay = 0.999
    config.eval.standing_samples = 1000
    smoke = {
        "model.generator_features": (16, 32),
        "model.discriminator_features": (32, 16),
        "checkpoint.best_metric": "",
        "eval.standing_samples": 64,
    }
    return apply_arg(config, arg, smoke)
