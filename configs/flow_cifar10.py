"""Flow matching on CIFAR-10: straight paths, logit-normal times, DDPM++ of 27.9 M parameters.

Command   python launch.py --config=configs/flow_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured
Paper     Lipman et al. 2023, https://arxiv.org/abs/2210.02747
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.diffusion.diffusion import NETWORKS, PROCESSES, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 20_000, batch_size=256, log=100, every=5000)
    config.optim.update(lr=5e-4, warmup_steps=1000, clip_norm=1.0)
    config.ema.decay = 0.9995
    config.process = PROCESSES.select("flow")
    config.model = NETWORKS.select(
        "unet",
        channels=128,
        multipliers=(1, 2, 2),
        num_blocks=2,
        attention=(16,),
        dropout=0.1,
    )
    config.objective.update(
        target="velocity", time_sampling="logit_normal", time_mean=0.0, time_std=1.0
    )
    config.sample.update(schedule="linear", num_steps=25)
    return config
