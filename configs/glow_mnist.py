"""A small Glow on MNIST: 2 levels of 8 steps, couplings of 64 channels, for two cores.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/glow_mnist.py
Hardware  2 CPU cores
Time      not measured yet
Number    not measured yet (eval/bpd: the 10,000 test images, a bound, one draw of the noise).
          Published for the full size, 3 levels of 32 steps: 1.05 bits/dim.
Paper     Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039
"""

from configs.presets import on_mnist, train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config())
    train_for(config, 6000, batch_size=64, log=100, every=2000)
    config.optim.update(schedule="cosine", warmup_steps=200, clip_norm=100.0)
    config.ema.decay = 0.998
    config.model = NETWORKS.select("glow", features=64, depth=8, levels=2)
    return config
