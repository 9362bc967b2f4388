"""ResNet-18 on CIFAR-10: SGD with momentum, crops, flips, label smoothing.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/resnet18_cifar10.py
Hardware  for an accelerator; its numbers are still to be measured
Time      -
Number    -
Paper     He et al. 2016, https://arxiv.org/abs/1512.03385
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.classifier.classifier import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config(), num_samples=0)
    train_for(config, 78_200, batch_size=128, log=200, every=3_910, sample=0)  # 200 epochs
    config.compute_dtype = "bfloat16"
    config.optim.update(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_steps=1_950,
    )
    config.data.update(pixels="symmetric", crop_padding=4, on_device=True)
    config.model = NETWORKS.select("resnet")
    config.objective.label_smoothing = 0.1
    return config
