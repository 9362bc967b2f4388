"""R3GAN on CIFAR-10 with classes, a third of the paper's width, for 20 minutes of an accelerator.

The paper's (20.8 million parameters, 200 million images, 8 GPUs for days) reaches FID 1.96 with
schedules over 20 million images; here are a few million and no schedule but the learning rate's.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/r3gan_cifar10.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured
Paper     Huang et al. 2024, https://arxiv.org/abs/2501.05441
"""

from experiments.config import apply_arg
from experiments.gan import gan_config


def get_config(arg=""):
    config = gan_config()
    config.batch_size = 256
    config.num_train_steps = 14_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 1000
    config.optim.b1, config.optim.b2 = 0.0, 0.95
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model.name = "r3gan"
    config.model.conditional = True
    config.model.latent_dim = 64
    config.model.generator_features = (256, 256, 256, 256)
    config.model.discriminator_features = (256, 256, 256, 256)
    config.objective.loss = "relativistic"
    config.objective.r1 = config.objective.r2 = 0.05
    config.augment.name = "ada"
    config.augment.p = 0.3
    config.augment.target = 0.0  # a relativistic discriminator has no r_t
    config.augment.policy = ("blit", "geometry")
    config.ema.half_life_images = 200_000
    config.eval.num_samples = 50_000
    config.eval.num_samples_in_loop = 5_000
    config.sample.batch_size = 500
    smoke = {
        "data.image_shape": (32, 32, 1),
        "model.generator_features": (8, 8),
        "model.discriminator_features": (8, 8),
        "model.blocks": 1,
        "model.group": 4,
        "optim.warmup_steps": 2,
        "augment.policy": ("color",),
        "eval.num_samples": 0,
        "eval.num_samples_in_loop": 0,
    }
    return apply_arg(config, arg, smoke)
