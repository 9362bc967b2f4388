"""The VAE of dense layers, 784-500-20-500-784, on dynamically binarised MNIST.

The form and size of the Flax example, which reports a test -ELBO of about 104 nats after 10 epochs.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/vae_mlp_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      173 s for 30 epochs (14,062 steps), 11,463 images/s
Number    eval/neg_elbo_nats 99.14 (recon 72.29, KL 26.85; 20 of 20 latents active), seed 0; the
          10,000 test images, statically binarised, one posterior sample. The same with
          importance weighting, eval/nll_nats_iw1000 93.76, by --mode=eval
          --config.eval.importance_samples=1000 --config.eval.batch_size=100.
Paper     Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
"""

from configs.presets import on_mnist, train_for, variants
from experiments.vae.vae import default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 14_062, batch_size=128, log=100, every=2000, sample=7000)  # 30 epochs
    config.model.update(name="mlp", latent_dim=20, encoder_features=(500,), decoder_features=(500,))
    return config
