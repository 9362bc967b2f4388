"""The dense layers of `gan_mnist` with the strongest loss here: relativistic, R1 and R2.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/rgan_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      28 min for 15,000 steps beside other work, at times stopped for it; about 1,000 images/s
          while it ran
Number    eval/fd_cnn_mnist_6d53cf07_10k 13.3, precision 0.791, recall 0.717, coverage 0.850, seed
          0; 96.7, 47.0, 28.6 and 18.6 after 3,000, 6,000, 9,000 and 12,000 steps, so still
          falling (`gan_mnist`: 31.8, recall 0.489; MNIST's own test images: 0.86). Precision,
          recall and coverage are against the first 10,000 training images
Paper     Huang et al. 2024, https://arxiv.org/abs/2501.05441
"""

from configs import gan_mnist
from configs.presets import variants


@variants
def get_config():
    config = gan_mnist.get_config()
    config.objective.update(loss="relativistic", r1=1.0, r2=1.0)
    config.optim.update(b1=0.0, b2=0.99)
    config.ema.decay = 0.999
    config.eval.standing_samples = 1000
    return config
