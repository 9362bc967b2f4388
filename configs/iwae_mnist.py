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

from configs.presets import on_mnist, train_for, variants
from experiments.vae.vae import default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 360_000, batch_size=100, log=500, every=10_000, sample=50_000)  # 600 epochs
    config.optim.update(schedule="cosine", eps=1e-4)  # the paper's eps
    config.model.update(
        name="mlp",
        activation="tanh",
        latent_dim=50,
        encoder_features=(200, 200),
        decoder_features=(200, 200),
    )
    config.objective.update(name="iwae", num_samples=50)
    config.eval.importance_samples = 50
    return config
