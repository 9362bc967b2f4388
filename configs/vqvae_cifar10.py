"""A VQ-VAE of 8x8 codes out of 512 on CIFAR-10, the first stage of a two-stage model.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/vqvae_cifar10.py
          python -m experiments.codes --config=configs/vqvae_cifar10.py \
            --workdir=runs/vqvae_cifar10
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12; the whole run is for an accelerator
Time      12 min for the run below, 135 images/s, beside other work
Number    half of the width, 1,500 steps of 64 (--config.model.width=64 --config.batch_size=64
          --config.optim.lr=1e-3 --config.num_train_steps=1500): eval/recon_mse 0.0060,
          eval/perplexity 446, all 512 codes in use, seed 0; reconstructions are blurred and told
          apart. The whole run still to be measured.
Paper     van den Oord et al. 2017, https://arxiv.org/abs/1711.00937
"""

from experiments.config import apply_arg
from experiments.vqvae import vqvae_config


def get_config(arg=""):
    config = vqvae_config()
    config.batch_size = 128
    config.num_train_steps = 50_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 5000
    config.sample_every_steps = 5000
    config.optim.lr = 2e-4
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    smoke = {
        "model.num_codes": 16,
        "model.code_dim": 4,
        "model.width": 8,
        "model.blocks": 1,
    }
    return apply_arg(config, arg, smoke)
