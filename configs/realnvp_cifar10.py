"""RealNVP on CIFAR-10 as in the paper: two scales, 8 residual blocks of 64 channels.

Adam, batches of 64, weight decay in place of the paper's penalty of weights (5e-5). Channels are
normalised as in Glow, not by batch statistics: see `genjax.models.realnvp`. The paper does not say
how long it trained.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/realnvp_cifar10.py
Hardware  for an accelerator
Time      not measured yet
Number    not measured yet (eval/bpd: the 10,000 test images). Published: 3.49 bits/dim.
Paper     Dinh et al. 2017, https://arxiv.org/abs/1605.08803
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 200_000, batch_size=64, log=100, every=10_000)
    config.optim.update(name="adamw", weight_decay=5e-5, warmup_steps=1000, clip_norm=100.0)
    config.ema.decay = 0.999
    config.nonfinite.policy = "skip"
    config.model = NETWORKS.select("realnvp")
    config.objective.logit = 0.05
    return config
