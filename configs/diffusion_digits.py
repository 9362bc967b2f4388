"""Diffusion on the embedded digits, at their own 8x8 pixels, with classes and guidance.

Command   python launch.py --config=configs/diffusion_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      of 1,200 steps still to be measured; 240 s with --config.num_train_steps=500, 60 of them
          for the first step (275 images/s, other programs on the same cores)
Number    of 1,200 steps still to be measured; with 500, eval/loss 0.476 and eval/bpd_vlb 5.82
          (prior 0.00008, diffusion 5.598, reconstruction 0.223), seed 0, on the 382 test digits
Paper     Karras et al. 2022, https://arxiv.org/abs/2206.00364
"""

from configs.presets import train_for, variants
from experiments.diffusion.diffusion import NETWORKS, default_config


@variants
def get_config():
    config = train_for(default_config(), 1200, batch_size=64, log=50, every=600)
    config.optim.update(lr=2e-3, warmup_steps=100, schedule="cosine", clip_norm=1.0)
    config.ema.decay = 0.995
    config.data.update(name="digits", image_shape=(8, 8, 1))
    config.model = NETWORKS.select(
        "unet", conditional=True, channels=32, attention=(4,), dropout=0.1
    )
    config.objective.label_dropout = 0.1
    config.sample.guidance = 1.5
    config.eval.vlb_draws = 4
    return config
