"""SNGAN's residual networks on CIFAR-10, without classes: hinge loss, spectral normalisation.

Five updates of the discriminator, on 64 images each, for one of the generator, as mimicry's
(https://github.com/kwotsin/mimicry) 100,000 steps have it, for FID 16.77 (50,000 images). Time of
20 minutes on an accelerator reaches about a third of them: the learning rate falls to 0 over those
that there are.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/sngan_cifar10.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured
Paper     Miyato et al. 2018, https://arxiv.org/abs/1802.05957
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.gan.gan import default_config


@variants
def get_config():
    config = on_cifar10(default_config(), num_samples=0)
    train_for(config, 35_000, batch_size=5 * 64, log=100, every=2500)
    config.optim.update(b1=0.0, b2=0.9, schedule="linear")
    config.model.update(
        name="sngan",
        latent_dim=128,
        generator_features=(256, 256, 256),
        discriminator_features=(128, 128, 128, 128),
        norm_momentum=0.9,
    )
    config.objective.update(loss="hinge", spectral_norm=True, d_steps=5)
    config.ema.decay = 0.999
    config.eval.update(standing_samples=1000, num_samples=50_000, num_samples_in_loop=5_000)
    config.sample.batch_size = 500
    return config
