"""Flow matching on MNIST with a small U-Net of the tutorial's channels (64, 128).

The tutorial's "diffusion" is an autoencoder that is trained without noise and gets no time. This is
the real thing: a straight path from noise to image, time, skips, classes. The first stage works at
14x14, on squares of 2x2 pixels, which is what makes it train on a CPU.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/diffusion_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      14 min for the 800 steps, 62 images/s, beside other work
Number    with --config.eval.num_samples=1000: eval/fd_cnn_mnist_6d53cf07_1k 19.1 (test images
          against training images: 3.5), precision 0.82, recall 0.70 (against the first 1,000
          training images), eval/loss 0.1665, no near copies, seed 0; nearly all samples read as
          digits of their class, on slightly grainy black
Paper     Lipman et al. 2023, https://arxiv.org/abs/2210.02747
"""

from configs.presets import on_mnist, train_for, variants
from experiments.diffusion.diffusion import NETWORKS, PROCESSES, default_config


@variants
def get_config():
    config = on_mnist(default_config(), num_samples=2_000)
    train_for(config, 800, batch_size=64, log=50, every=400)
    config.optim.update(lr=2e-3, warmup_steps=50, schedule="cosine", clip_norm=1.0)
    config.ema.decay = 0.99
    config.process = PROCESSES.select("flow")
    config.model = NETWORKS.select("unet", conditional=True, attention=(7,), patch_size=2)
    config.objective.update(
        target="velocity",
        time_sampling="logit_normal",
        time_mean=0.0,
        time_std=1.0,
        label_dropout=0.1,
    )
    config.sample.update(schedule="linear", num_steps=20, guidance=2.0)
    return config
