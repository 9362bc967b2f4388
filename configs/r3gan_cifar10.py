"""R3GAN on CIFAR-10 with classes, a third of the paper's width, for 20 minutes of an accelerator.

The paper's (20.8 million parameters, 200 million images, 8 GPUs for days) reaches FID 1.96 with
schedules over 20 million images; here are a few million and no schedule but the learning rate's.
The precision is the paper's: bfloat16, but for the stage of 4x4 pixels.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/r3gan_cifar10.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured
Paper     Huang et al. 2024, https://arxiv.org/abs/2501.05441
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.gan.gan import default_config


@variants
def get_config():
    config = on_cifar10(default_config(), num_samples=0)
    train_for(config, 14_000, batch_size=256, log=100, every=1000)
    config.optim.update(b1=0.0, b2=0.95, schedule="cosine", warmup_steps=100)
    config.compute_dtype = "bfloat16"
    config.model.update(
        name="r3gan",
        conditional=True,
        latent_dim=64,
        generator_features=(256, 256, 256, 256),
        discriminator_features=(256, 256, 256, 256),
        float32_stages=1,
    )
    config.objective.update(loss="relativistic", r1=0.05, r2=0.05)
    # A relativistic discriminator has no signs of logits that p could follow.
    config.augment.update(name="ada", p=0.3, target=0.0, policy=("blit", "geometry"))
    config.ema.half_life_images = 200_000
    config.eval.update(num_samples=50_000, num_samples_in_loop=5_000)
    config.sample.batch_size = 500
    return config
