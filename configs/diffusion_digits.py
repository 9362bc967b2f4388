"""Diffusion on the embedded digits, at their own 8x8 pixels, with classes and guidance.

Command   python launch.py --config=configs/diffusion_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      of 1,200 steps still to be measured; 240 s with --config.num_train_steps=500, 60 of them
          for the first step (275 images/s, other programs on the same cores)
Number    of 1,200 steps still to be measured; with 500, eval/loss 0.476 and eval/bpd_vlb 5.82
          (prior 0.00008, diffusion 5.598, reconstruction 0.223), seed 0, on the 382 test digits
Paper     Karras et al. 2022, https://arxiv.org/abs/2206.00364
"""

from experiments.config import apply_arg, base_config
from experiments.diffusion import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 64
    config.num_train_steps = 1200
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 600
    config.optim.lr = 2e-3
    config.optim.warmup_steps = 100
    config.optim.schedule = "cosine"
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.995
    config.data.name = "digits"
    config.data.image_shape = (8, 8, 1)
    config.model = {
        "name": "unet",
        "conditional": True,
        "channels": 32,
        "multipliers": (1, 2),
        "num_blocks": 1,
        "attention": (4,),
        "variant": "ddpmpp",
        "dropout": 0.1,
        "patch_size": 1,
        "remat": False,
    }
    config.objective.label_dropout = 0.1
    config.sample.guidance = 1.5
    config.eval.vlb_draws = 4
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "sample.num_steps": 4,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
