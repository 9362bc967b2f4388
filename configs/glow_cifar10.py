"""Glow on CIFAR-10 by the authors' hyperparameters: 3 levels of 32 steps, couplings of 512.

From openai/glow, `--n_level 3 --depth 32 --flow_permutation 2 --flow_coupling 1 --learntop
--lr 0.001 --n_bits_x 8` on 8 devices: 64 images each; Adamax with b2 = 1 - 1/98, warm-up of 10
epochs, average of parameters over one epoch; 256 images initialise. The authors stop by hand;
1,500 epochs here.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/glow_cifar10.py
Hardware  for accelerators
Time      not measured yet
Number    not measured yet (eval/bpd: the 10,000 test images). Published: 3.35 bits/dim.
Paper     Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 147_000, batch_size=512, log=100, every=9800)
    config.optim.update(name="adamax", b2=0.9898, warmup_steps=980)
    config.ema.decay = 0.9898
    config.nonfinite.policy = "skip"
    config.model = NETWORKS.select("glow", remat=True)
    return config
