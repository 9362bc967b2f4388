"""One-step images: a mean flow on CIFAR-10, the network of `flow_cifar10` with two times.

Command   python launch.py --config=configs/meanflow_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 2.92 in one step, with a network of 55.7 M
Paper     Geng et al. 2025, https://arxiv.org/abs/2505.13447
"""

from configs import flow_cifar10
from configs.presets import on_cifar10, train_for, variants
from experiments.diffusion.one_step import default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 20_000, batch_size=256, log=100, every=5000)
    config.optim.update(lr=6e-4, warmup_steps=1000, clip_norm=1.0)
    config.ema.decay = 0.9995
    config.model = {**flow_cifar10.get_config().model.to_dict(), "dropout": 0.2}
    config.objective.update(time_mean=-2.0, time_std=2.0, flow_ratio=0.25, power=0.75)
    return config
