"""The tutorial's convolutional VAE with a two-dimensional latent, on MNIST.

As it was meant: KL summed over the latent dimensions (the tutorial averages it: half), binary
pixels (a new draw every step) instead of grey targets for a Bernoulli, which are no likelihood.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/vae_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      834 s for 30 epochs (14,062 steps), 2,237 images/s
Number    eval/neg_elbo_nats 154.3 (recon 148.1, KL 6.3), seed 0; the 10,000 test images,
          statically binarised, one posterior sample.
          Some seeds leave one latent unused for the first 1,000 to 2,000 steps.
Paper     Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
"""

from configs.presets import on_mnist, train_for, variants
from experiments.vae.vae import default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 14_062, batch_size=128, log=100, every=2000, evaluate=1000)  # 30 epochs
    return config
