"""A GAN of dense layers on the embedded digits, with classes: relativistic, R1 and R2.

Command   python launch.py --config=configs/gan_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      1 min, 5,600 images/s
Number    eval/fd_cnn_digits_a1b86650_1k 14.4 (1,063, 220, 19.7 after 1,000, 2,000, 3,000 steps),
          precision 0.76, recall 0.75, near copies 0, seed 0; the samples are digits of their
          classes with ragged edges
Paper     Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
"""

from configs.presets import train_for, variants
from experiments.gan.gan import default_config


@variants
def get_config():
    config = train_for(default_config(), 4000, batch_size=64, log=100, every=1000)
    config.data.update(name="digits", image_shape=(28, 28, 1))
    config.model.update(
        latent_dim=32,
        conditional=True,
        generator_features=(128, 256),
        discriminator_features=(256, 128),
    )
    config.objective.update(loss="relativistic", r1=1.0, r2=1.0)
    config.ema.decay = 0.995
    config.eval.update(standing_samples=500, num_samples=1_000, num_samples_in_loop=1_000)
    return config
