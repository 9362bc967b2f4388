"""PixelRNN on binarised MNIST: seven layers of Diagonal BiLSTM.

Row LSTM: --config.model.kind=row

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelrnn_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
          (published: 79.20, Row LSTM 80.54)
"""

from configs.presets import on_mnist, train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 46_875, batch_size=64, log=100, every=5000)  # 50 epochs
    config.optim.update(schedule="cosine", clip_norm=1.0)
    config.model = NETWORKS.select("pixelrnn", features=16)
    config.objective.head = "bernoulli"
    return config
