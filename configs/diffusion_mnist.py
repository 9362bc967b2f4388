"""Flow matching on MNIST with a small U-Net of the tutorial's channels (64, 128).

The tutorial's "diffusion" is an autoencoder that is trained without noise and told no time. This is
the real thing: a straight path from noise to image, time, skips, classes. The first stage works at
14x14, on squares of 2x2 pixels, which is what makes it train on a CPU.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/diffusion_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      14 min for the 800 steps, 62 images/s, beside other work
Number    with --config.eval.num_samples=1000: eval/fd_cnn_mnist_6d53cf07_1k 19.1 (test images
          against training images: 3.9), precision 0.82, recall 0.70, eval/loss 0.1665, no near
          copies, seed 0; nearly all samples read as digits of their class, on slightly grainy black
Paper     Lipman et al. 2023, https://arxiv.org/abs/2210.02747
"""

from experiments.config import apply_arg, base_config
from experiments.diffusion import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 64
    config.num_train_steps = 800
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 400
    config.optim.lr = 2e-3
    config.optim.warmup_steps = 50
    config.optim.schedule = "cosine"
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.99
    config.data.name = "mnist"
    config.eval.num_samples = 2_000
    config.data.image_shape = (28, 28, 1)
    config.process = {"name": "flow"}
    config.model = {
        "name": "unet",
        "conditional": True,
        "channels": 64,
        "multipliers": (1, 2),
        "num_blocks": 1,
        "attention": (7,),
        "variant": "ddpmpp",
        "dropout": 0.0,
        "patch_size": 2,
        "remat": False,
    }
    config.objective.target = "velocity"
    config.objective.time_sampling = "logit_normal"
    config.objective.time_mean, config.objective.time_std = 0.0, 1.0
    config.objective.label_dropout = 0.1
    config.sample.sampler, config.sample.schedule = "heun", "linear"
    config.sample.num_steps = 20
    config.sample.guidance = 2.0
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "sample.num_steps": 4,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
