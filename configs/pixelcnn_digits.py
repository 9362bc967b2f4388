"""A small masked PixelCNN on the embedded digits: minutes on two cores.

Command   python launch.py --config=configs/pixelcnn_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      about 8 min on a busy machine (150 images/s)
Number    eval/nll_nats 257.7 (0.474 bits/dim), seed 0, 1,000 steps, 8,241 parameters; the 382 test
          images, statically binarised. The 8x8 digits are enlarged to 28x28, so many pixels are
          grey and their binarisation is noise: not comparable with MNIST. One run, which was
          stopped by a signal at step 823 and resumed.
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
"""

from configs.presets import train_for, variants
from experiments.autoregressive.autoregressive import NETWORKS, default_config


@variants
def get_config():
    config = train_for(default_config(), 1000, batch_size=64, log=50, every=500)
    config.optim.update(lr=2e-3, schedule="cosine")
    config.data.update(name="digits", pixels="binarized_dynamic")
    config.model = NETWORKS.select("pixelcnn", features=16, num_layers=5, residual=True)
    config.objective.head = "bernoulli"
    config.eval.num_samples = 1_000
    config.sample.num = 16
    return config
