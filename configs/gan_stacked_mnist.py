"""Stacked MNIST: how many of 1,000 modes a generator reaches; R3GAN's networks, small.

Three digits are the channels of an image. 26,000 images are drawn and labelled by `cnn_mnist`,
channel by channel (PacGAN's protocol, Lin et al. 2018; VEEGAN and others draw 25,600):
eval/modes_..., at most 1,000, and the KL of their frequencies from uniform, which is about
999 / (2 x 26,000) = 0.019 for perfect images. 26,000 stacks of MNIST's test digits reach 1,000 at
0.024 (`python -m benchmarks.floor --config=configs/gan_stacked_mnist.py --counts=26000`).
Published: DCGAN 99 modes, KL 3.40; WGAN-GP 959, 0.73; PacGAN 992, 0.28; R3GAN 1,000, 0.029.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gan_stacked_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured
Paper     Metz et al. 2017, https://arxiv.org/abs/1611.02163; Huang et al. 2024,
          https://arxiv.org/abs/2501.05441
"""

from configs.presets import train_for, variants
from experiments.gan.gan import default_config


@variants
def get_config():
    config = train_for(default_config(), 20_000, batch_size=256, log=200, every=2000)
    config.optim.update(b1=0.0, b2=0.99)
    config.data.update(name="stacked_mnist", image_shape=(28, 28, 3))
    config.model.update(
        name="r3gan",
        latent_dim=64,
        generator_features=(128, 128, 64),
        discriminator_features=(64, 128, 128),
    )
    config.objective.update(loss="relativistic", r1=1.0, r2=1.0)
    config.ema.half_life_images = 200_000
    config.eval.update(num_samples=26_000, num_samples_in_loop=5_000, metrics=("fd", "modes"))
    config.sample.batch_size = 500
    return config
