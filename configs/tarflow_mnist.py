"""A small TarFlow on MNIST with classes: 49 patches of 4x4 pixels, 4 blocks of 2 layers.

Gaussian noise of 0.1 for pixels in [-1, 1]: the likelihood is that of noisy images, samples are
denoised by one step along the score.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/tarflow_mnist.py
Hardware  2 CPU cores
Time      not measured yet
Number    not measured yet (eval/noisy_bits_per_dim: the 10,000 test images, one draw of the noise)
Paper     Zhai et al. 2024, https://arxiv.org/abs/2412.06329
"""

from configs.presets import on_mnist, train_for, variants
from experiments.normalizing_flow.normalizing_flow import NETWORKS, default_config


@variants
def get_config():
    config = on_mnist(default_config())
    train_for(config, 4000, batch_size=64, log=100, every=2000)
    config.optim.update(name="adamw", lr=1e-3, b2=0.95, weight_decay=1e-4)
    config.optim.update(schedule="cosine", warmup_steps=200, clip_norm=10.0)
    config.ema.decay = 0.998
    config.model = NETWORKS.select(
        "tarflow", width=96, layers=2, head_dim=32, class_conditional=True
    )
    config.objective.update(noise="gaussian", noise_std=0.1, label_dropout=0.1)
    return config
