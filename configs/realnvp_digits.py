"""A small RealNVP on scikit-learn's 8x8 digits: two scales, logit transform, uniform noise.

Command   python launch.py --config=configs/realnvp_digits.py
Hardware  2 CPU cores
Time      not measured yet
Number    not measured yet (eval/bpd: a bound, one draw of the noise; digits have 17 grey levels)
Paper     Dinh et al. 2017, https://arxiv.org/abs/1605.08803
"""

from configs.presets import train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = default_config()
    config.data.image_shape = (8, 8, 1)
    train_for(config, 2000, batch_size=64, log=50, every=1000)
    config.optim.update(schedule="cosine", warmup_steps=100, clip_norm=50.0)
    config.ema.decay = 0.99
    config.model = NETWORKS.select("realnvp", features=32, blocks=2)
    config.objective.logit = 0.05
    return config
