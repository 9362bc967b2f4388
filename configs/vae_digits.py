"""The tutorial's convolutional VAE with a two-dimensional latent, on the embedded digits.

The default run. As it was meant: KL summed over the latent dimensions, binary pixels (a new draw
every step), so that the -ELBO is a bound on a likelihood, in nats per image.

Command   python launch.py --config=configs/vae_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      58 s with compiled programs cached, 54 s of it training (2,359 images/s)
Number    eval/neg_elbo_nats 291.7 (recon 286.0, KL 5.7), seed 0, 1,000 steps; the 382 test images,
          statically binarised, one posterior sample. The 8x8 digits are enlarged to 28x28, so many
          pixels are grey and their binarisation is noise: not comparable with MNIST.
          With JAX 0.12.0, Python 3.12: 292.3 (286.7, 5.6), eval/fd_cnn_digits_a1b86650_1k 284.9,
          precision 0.79, recall 0.02: blurred, and two latent dimensions hold few of the ways to
          write a digit.
Paper     Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
"""

from configs.presets import train_for, variants
from experiments.vae.vae import default_config


@variants
def get_config():
    config = train_for(default_config(), 1000, batch_size=128, log=50, every=500)
    config.optim.lr = 2e-3
    config.data.update(name="digits", pixels="binarized_dynamic")
    config.eval.num_samples = 1_000
    return config
