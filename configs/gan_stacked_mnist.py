"""Stacked MNIST: how many of 1,000 modes a generator reaches; R3GAN's networks, small.

Three digits are the channels of an image. 26,000 images are drawn and labelled by `cnn_mnist`,
channel by channel (PacGAN's protocol, Lin et al. 2018; VEEGAN and others draw 25,600):
eval/modes_..., at most 1,000, and the KL of their frequencies from uniform, which is about
999 / (2 x 26,000) = 0.019 for perfect images. 26,000 stacks of MNIST's test digits reach 1,000 at
0.024 (`python -m experiments.bench.floor --config=configs/gan_stacked_mnist.py --counts=26000`).
Published: DCGAN 99 modes, KL 3.40; WGAN-GP 959, 0.73; PacGAN 992, 0.28; R3GAN 1,000, 0.029.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gan_stacked_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured
Paper     Metz et al. 2017, https://arxiv.org/abs/1611.02163; Huang et al. 2024,
          https://arxiv.org/abs/2501.05441
"""

from experiments.config import apply_arg
from experiments.gan import gan_config


def get_config(arg=""):
    config = gan_config()
    config.batch_size = 256
    config.num_train_steps = 20_000
    config.log_every_steps = 200
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 2000
    config.optim.b1, config.optim.b2 = 0.0, 0.99
    config.data.name = "stacked_mnist"
    config.data.image_shape = (28, 28, 3)
    config.model.name = "r3gan"
    config.model.latent_dim = 64
    config.model.generator_features = (128, 128, 64)
    config.model.discriminator_features = (64, 128, 128)
    config.objective.loss = "relativistic"
    config.objective.r1 = config.objective.r2 = 1.0
    config.ema.half_life_images = 200_000
    config.eval.num_samples = 26_000
    config.eval.num_samples_in_loop = 5_000
    config.eval.metrics = ("fd", "modes")
    config.sample.batch_size = 500
    smoke = {
        "data.image_shape": (28, 28, 1),
        "model.generator_features": (8, 4),
        "model.discriminator_features": (4, 8),
        "model.blocks": 1,
        "model.group": 4,
        "eval.metrics": ("fd",),
    }
    return apply_arg(config, arg, smoke)
