"""TarFlow on CIFAR-10 with classes: 256 patches of 2x2 pixels, 8 blocks of 8 layers of width 768.

The network of the authors' ImageNet 64x64 (`--patch_size=2 --channels=768 --blocks=8
--layers_per_block=8`) and their optimizer; they have
no CIFAR-10. For a likelihood of pixels: --config.objective.noise=uniform.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/tarflow_cifar10.py
Hardware  for accelerators
Time      not measured yet
Number    not measured yet (eval/noisy_bits_per_dim: the 10,000 test images). Nothing is published
          for CIFAR-10; for ImageNet 64x64 with uniform noise 2.99 bits/dim.
Paper     Zhai et al. 2024, https://arxiv.org/abs/2412.06329
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 200_000, batch_size=256, log=100, every=10_000)
    config.compute_dtype = "bfloat16"
    config.optim.update(name="adamw", lr=1e-4, b2=0.95, weight_decay=1e-4)
    config.optim.update(schedule="cosine", warmup_steps=200)
    config.nonfinite.policy = "skip"
    config.model = NETWORKS.select(
        "tarflow", patch_size=2, width=768, blocks=8, class_conditional=True, remat=True
    )
    config.objective.update(noise="gaussian", label_dropout=0.1)
    config.sample.batch_size = 100  # keys and values of all layers are held
    return config
