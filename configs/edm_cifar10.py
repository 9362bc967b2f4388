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

from experiments.config import apply_arg, base_config
from experiments.diffusion import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 512
    config.num_train_steps = 10_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 2500
    config.optim.lr = 1e-3
    config.optim.warmup_steps = 1000
    config.optim.clip_norm = 1.0
    config.ema.half_life_images = 250_000.0
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model = {
        "name": "unet",
        "conditional": True,
        "channels": 128,
        "multipliers": (1, 2, 2),
        "num_blocks": 3,
        "attention": (16,),
        "variant": "ddpmpp",
        "dropout": 0.13,
        "classes_first": True,
        "patch_size": 1,
        "remat": False,
    }
    config.objective.label_dropout = 0.1
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "model.num_blocks": 1,
        "sample.num_steps": 4,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
