"""A small VDVAE on CIFAR-10: width 128, 24 stochastic levels at 1 to 32 pixels.

The paper's has 39 million parameters and 45 levels; this is for tens of minutes, not days.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/vdvae_cifar10.py
Hardware  an accelerator; still to be measured
Time      still to be measured
Number    still to be measured. Published for the large model: 2.87 bits per dimension.
Paper     Child 2021, https://arxiv.org/abs/2011.10650
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.vae.vdvae import default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 40_000, batch_size=128, log=100, every=5000)
    config.compute_dtype = "bfloat16"
    config.optim.update(name="adamw", lr=6e-4, schedule="cosine", warmup_steps=100)
    config.optim.update(b1=0.9, b2=0.9, weight_decay=0.01, clip_norm=200.0, skip_norm=3000.0)
    config.ema.decay = 0.9995
    config.nonfinite.policy = "skip"
    config.model.update(encoder_blocks=(4, 3, 3, 2, 2), decoder_blocks=(8, 7, 5, 3, 1))
    return config
