"""One-step digits: a mean flow on MNIST, the network of `diffusion_mnist`.

Command   python launch.py --config=configs/meanflow_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      about 20 min for 1,000 steps, 53 images/s
Number    after 1,000 of the 2,000 steps, with --config.eval.num_samples=1000:
          eval/fd_cnn_mnist_6d53cf07_1k 92.9 in one step, precision 0.95, recall 0.19: digits of
          their class, blurred; 14.1 in 50 steps (--config.sample.num_steps=50), precision 0.82,
          recall 0.78, sharp (`diffusion_mnist`, 800 steps: 19.1; test images: 3.5); seed 0.
          Precision and recall are against the first 1,000 training images
Paper     Geng et al. 2025, https://arxiv.org/abs/2505.13447
"""

from configs import diffusion_mnist
from configs.presets import on_mnist, train_for, variants
from experiments.diffusion.one_step import default_config


@variants
def get_config():
    config = on_mnist(default_config())
    train_for(config, 2000, batch_size=64, log=50, every=500)
    config.optim.update(lr=1e-3, warmup_steps=50, clip_norm=1.0)
    config.ema.decay = 0.99
    config.model = diffusion_mnist.get_config().model.to_dict()
    return config
