"""Gated PixelCNN on binarised MNIST: two stacks, no blind spot, dilated layers.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gated_pixelcnn_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1606.05328
"""

from configs.presets import on_mnist, train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 46_875, batch_size=128, log=100, every=2500)  # 100 epochs
    config.optim.schedule = "cosine"
    config.ema.decay = 0.999
    config.model = NETWORKS.select("gated_pixelcnn", dilations=(1, 2, 1, 4, 1, 2, 1))
    config.objective.head = "bernoulli"
    return config
