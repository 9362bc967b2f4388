"""A VQ-VAE of 8x8 codes out of 512 on CIFAR-10, the first stage of a two-stage model.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/vqvae_cifar10.py
          python launch.py --config=configs/vqvae_cifar10.py --mode=codes
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12; the whole run is for an accelerator
Time      12 min for the run below, 135 images/s, beside other work
Number    half of the width, 1,500 steps of 64 (--config.model.width=64 --config.batch_size=64
          --config.optim.lr=1e-3 --config.num_train_steps=1500): eval/recon_mse 0.0060,
          eval/perplexity 446, all 512 codes in use, seed 0; reconstructions are blurred and told
          apart. The whole run still to be measured.
Paper     van den Oord et al. 2017, https://arxiv.org/abs/1711.00937
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.vae.vqvae import default_config


@variants
def get_config():
    config = on_cifar10(default_config(), num_samples=0)
    train_for(config, 50_000, batch_size=128, log=100, every=5000)
    config.optim.lr = 2e-4
    return config
