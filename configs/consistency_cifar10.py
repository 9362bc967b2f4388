"""Images in one or two steps: consistency training on CIFAR-10, the network of `edm_cifar10`.

From scratch, or, in far fewer steps, tuned from a diffusion model: a run of `edm_cifar10`
(--config.init_from=runs/edm_cifar10), or the authors' own weights in their size
(--config.init_from=edm-cifar10-32x32-cond-vp.pkl --config.model.multipliers='(2,2,2)'
--config.model.num_blocks=4), in this way: stage 0 is diffusion itself.

Command   python launch.py --config=configs/consistency_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 3.60 in one step and 2.11 in two, tuned from EDM's
          weights of 55.7 M without classes for 400,000 steps
Paper     Geng et al. 2024, https://arxiv.org/abs/2406.14548
"""

from configs import edm_cifar10
from configs.presets import on_cifar10, train_for, variants
from experiments.diffusion.one_step import PROCESSES, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 20_000, batch_size=128, log=100, every=5000)
    config.optim.update(lr=1e-4, warmup_steps=1000)  # Adam with a warm-up; the paper has RAdam
    config.ema.decay = 0.9999
    config.process = PROCESSES.select("edm")
    config.model = {**edm_cifar10.get_config().model.to_dict(), "dropout": 0.2}
    config.objective.update(name="consistency", time_mean=-1.1, time_std=2.0)
    config.sample.update(num_steps=2, schedule="karras")
    return config
