"""PixelCNN in the tutorial's sizes (one 7x7 and seven 3x3 layers of 64), on binarised MNIST.

As it was meant: the convolutions are masked, type A then B (the tutorial's are not, and copy their
input), and the pixels are binary draws. The tutorial's 256-way softmax on grey pixels:
--config.objective.head=softmax --config.data.pixels=unit

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelcnn_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12; the whole run is for an accelerator
Time      16 min for 2,000 of the 93,750 steps, 150 images/s, beside other work
Number    2,000 steps (--config.num_train_steps=2000): eval/nll_nats 94.02, the 10,000 test images,
          statically binarised; eval/fd_cnn_mnist_6d53cf07_10k 169, seed 0. Half of the samples and
          most completions of upper halves read as digits. The whole run still to be measured.
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
"""

from configs.presets import on_mnist, train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 93_750, batch_size=64, log=100, every=5000)  # 100 epochs
    config.optim.schedule = "cosine"
    config.model = NETWORKS.select("pixelcnn", residual=True)
    config.objective.head = "bernoulli"
    return config
