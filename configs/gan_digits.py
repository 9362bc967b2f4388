"""A GAN of dense layers on the embedded digits, with classes: relativistic, R1 and R2.

Command   python launch.py --config=configs/gan_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      1 min, 5,600 images/s
Number    eval/fd_cnn_digits_a1b86650_1k 15.6 (1,066, 216, 19.0 after 1,000, 2,000, 3,000 steps),
          precision 0.77, recall 0.72, near copies 0, seed 0; the samples are digits of their
          classes with ragged edges
Paper     Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
"""

from experiments.config import apply_arg
from experiments.gan import gan_config


def get_config(arg=""):
    config = gan_config()
    config.batch_size = 64
    config.num_train_steps = 4000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 1000
    config.data.image_shape = (28, 28, 1)
    config.model.latent_dim = 32
    config.model.conditional = True
    config.model.generator_features = (128, 256)
    config.model.discriminator_features = (256, 128)
    config.objective.loss = "relativistic"
    config.objective.r1 = config.objective.r2 = 1.0
    config.ema.decay = 0.995
    config.eval.standing_samples = 500
    config.eval.num_samples = 1_000
    config.eval.num_samples_in_loop = 1_000
    smoke = {"model.generator_features": (16, 16), "model.discriminator_features": (16, 16)}
    return apply_arg(config, arg, smoke)
