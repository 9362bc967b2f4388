"""The importance-weighted autoencoder, k = 50, one latent layer, on dynamically binarised MNIST.

The paper's network: 784-200-200-50-200-200-784, tanh. Its schedule is 3,280 passes in eight stages
of falling learning rate, from 1e-3; here one cosine over 600 epochs.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/iwae_mnist.py
          python launch.py --config=configs/iwae_mnist.py --mode=eval \
            --config.eval.importance_samples=5000
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12; the whole run is for an accelerator
Time      6 min for 4,000 of the 360,000 steps, 1,200 images/s
Number    the beginning of the curve, as a run of 4,000 steps (--config.num_train_steps=4000):
          eval/nll_nats_iw50 126.8, 113.4, 109.4, 108.7 after 1,000 to 4,000 steps, test set, seed
          0. The whole run still to be measured. Published: -log p(x) with 5,000 samples 84.78
          nats (the same network as a VAE, k = 1: 86.76); by pythae 86.82.
Paper     Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519
"""

from experiments.config import apply_arg
from experiments.vae import vae_config


def get_config(arg=""):
    config = vae_config()
    config.batch_size = 100
    config.num_train_steps = 360_000  # 600 epochs
    config.log_every_steps = 500
    config.eval_every_steps = config.checkpoint_every_steps = 10_000
    config.sample_every_steps = 50_000
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.optim.eps = 1e-4  # the paper's
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model.name = "mlp"
    config.model.activation = "tanh"
    config.model.latent_dim = 50
    config.model.encoder_features = config.model.decoder_features = (200, 200)
    config.objective.name = "iwae"
    config.objective.num_samples = 50
    config.eval.importance_samples = 50
    smoke = {
        "model.encoder_features": (8, 8),
        "model.decoder_features": (8, 8),
        "objective.num_samples": 4,
        "eval.importance_samples": 4,
        "eval.importance_chunk": 2,
    }
    return apply_arg(config, arg, smoke)
