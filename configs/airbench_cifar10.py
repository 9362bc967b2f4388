"""The CIFAR-10 speed run: 94 % of the test images in 8 epochs.

Whitened first convolution, identity initialisation, Muon, alternating flips, label smoothing, and
six views of each test image.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/airbench_cifar10.py:seeds=20
Hardware  for an accelerator; its numbers are still to be measured
Time      -
Number    -
Paper     Jordan 2024, https://arxiv.org/abs/2404.00498;
          Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.classifier.classifier import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config(), flip="alternating", num_samples=0)
    train_for(config, 200, batch_size=2_000, log=25, every=0)  # 8 epochs
    config.compute_dtype = "bfloat16"
    config.optim.update(
        name="airbench", lr=0.24, momentum=0.6, weight_decay=4e-3, schedule="linear"
    )
    config.data.update(crop_padding=2, on_device=True)
    config.model = NETWORKS.select("airbench")
    config.objective.label_smoothing = 0.2
    config.eval.update(views="multi_crop", batch_size=2_000)
    return config
