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

from experiments.config import apply_arg
from experiments.vae import vae_config


def get_config(arg=""):
    config = vae_config()
    config.batch_size = 128
    config.num_train_steps = 14_062  # 30 epochs
    config.log_every_steps = 100
    config.eval_every_steps = 1000
    config.sample_every_steps = config.checkpoint_every_steps = 2000
    config.optim.lr = 1e-3
    config.data.name = "mnist"
    config.data.pixels = "binarized_dynamic"
    config.eval.num_samples = 10_000
    smoke = {
        "model.encoder_features": (4, 8),
        "model.encoder_hidden": 8,
        "model.decoder_features": (8, 4),
    }
    return apply_arg(config, arg, smoke)
