"""EDM on CIFAR-10 with classes: DDPM++ of 35.8 M parameters, a smaller one than the paper's.

The paper's 55.7 M is --config.model.multipliers='(2,2,2)' --config.model.num_blocks=4. Without its
augmentation pipeline; mirror images only. The authors' own weights, in that size:
--mode=eval --config.init_from=edm-cifar10-32x32-cond-vp.pkl

Command   python launch.py --config=configs/edm_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 1.79 after 200 million images
Paper     Karras et al. 2022, https://arxiv.org/abs/2206.00364
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.diffusion.diffusion import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 10_000, batch_size=512, log=100, every=2500)
    config.optim.update(lr=1e-3, warmup_steps=1000, clip_norm=1.0)
    config.ema.half_life_images = 250_000.0
    config.model = NETWORKS.select(
        "unet",
        conditional=True,
        channels=128,
        multipliers=(1, 2, 2),
        num_blocks=3,
        attention=(16,),
        dropout=0.13,
        classes_first=True,
    )
    config.objective.label_dropout = 0.1
    return config
