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

from experiments.config import apply_arg
from experiments.gan import gan_config


def get_config(arg=""):
    config = gan_config()
    config.batch_size = 5 * 64
    config.num_train_steps = 35_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 2500
    config.optim.b1, config.optim.b2 = 0.0, 0.9
    config.optim.schedule = "linear"
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model.name = "sngan"
    config.model.latent_dim = 128
    config.model.generator_features = (256, 256, 256)
    config.model.discriminator_features = (128, 128, 128, 128)
    config.model.norm_momentum = 0.9
    config.objective.loss = "hinge"
    config.objective.spectral_norm = True
    config.objective.d_steps = 5
    config.ema.decay = 0.999
    config.eval.standing_samples = 1000
    config.eval.num_samples = 50_000
    config.eval.num_samples_in_loop = 5_000
    config.sample.batch_size = 500
    smoke = {
        "data.image_shape": (32, 32, 1),
        "batch_size": 20,
        "objective.d_steps": 2,
        "model.generator_features": (8,),
        "model.discriminator_features": (8, 8),
        "eval.standing_samples": 32,
        "eval.num_samples": 0,
        "eval.num_samples_in_loop": 0,
    }
    return apply_arg(config, arg, smoke)
