"""A small PixelCNN++ on CIFAR-10: three blocks of 96 channels at each of three resolutions.

Data-dependent initialisation of the normalised weights, Polyak averaging (`ema`), dropout. The
published model has five blocks of 160 channels: 2.92 bits/dim.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/pixelcnn_pp_cifar10.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/bpd: the 10,000 test images)
Paper     Salimans et al. 2017, https://arxiv.org/abs/1701.05517
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 20_000, batch_size=256, log=100, every=2000)
    config.compute_dtype = "bfloat16"
    config.optim.update(schedule="cosine", warmup_steps=500, clip_norm=1.0)
    config.ema.decay = 0.9995
    config.model = NETWORKS.select("pixelcnn_pp", features=96, blocks=3, dropout=0.3)
    config.objective.head = "logistic_mixture"
    return config
