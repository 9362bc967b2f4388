"""The tutorial's VAE for 64x64 colour pictures, on a folder of them, as it was meant.

A latent of 128 with mean and log-variance in place of a deterministic code larger than the picture,
a decoder that ends at 64x64, and a normal likelihood of scale 0.1 on pixels in [0, 1].

Command   python launch.py --config=configs/vae_conv64.py --config.data.name=folder:/your/pictures
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      17 min for 1,500 steps beside other work; 211 images/s on a quiet machine
Number    1,500 steps on 1,000 photographs of flowers (--config.num_train_steps=1500), 100 others:
          eval/recon_mse 0.0206, eval/neg_elbo_nats -3,682 (KL 558), 128 active units, seed 0. The
          reconstructions are blurred, but a person tells a daisy from a thistle; the samples are
          textures in the colours of flowers in grass. 10,000 steps still to be measured.
Paper     Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
"""

from configs.presets import train_for, variants
from experiments.vae.vae import default_config


@variants
def get_config():
    config = train_for(default_config(), 10_000, batch_size=64, log=50, every=1000)
    config.optim.clip_norm = 1000.0  # the loss is a sum over 12,288 numbers
    config.data.update(name="folder:pictures", image_shape=(64, 64, 3), flip="random")
    config.model.update(
        name="conv64",
        latent_dim=128,
        encoder_features=(64, 128),
        decoder_features=(256, 128, 64, 32),
    )
    config.objective.likelihood = "gaussian"
    return config
