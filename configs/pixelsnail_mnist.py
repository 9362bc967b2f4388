"""A small PixelSNAIL on binarised MNIST: causal convolutions and attention.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelsnail_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     Chen et al. 2018, https://arxiv.org/abs/1712.09763
"""

from configs.presets import on_mnist, train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 46_875, batch_size=128, log=100, every=2500)  # 100 epochs
    config.optim.update(schedule="cosine", warmup_steps=500, clip_norm=1.0)
    config.ema.decay = 0.999
    config.model = NETWORKS.select("pixelsnail", blocks=8)
    config.objective.head = "bernoulli"
    return config
