"""One-step digits: a mean flow on MNIST, the network of `diffusion_mnist`.

Command   python launch.py --config=configs/meanflow_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      about 20 min for 1,000 steps, 53 images/s
Number    after 1,000 of the 2,000 steps, with --config.eval.num_samples=1000:
          eval/fd_cnn_mnist_6d53cf07_1k 92.9 in one step, precision 0.95, recall 0.19: digits of
          their class, blurred; 14.1 in 50 steps (--config.sample.num_steps=50), precision 0.82,
          recall 0.78, sharp (`diffusion_mnist`, 800 steps: 19.1; test images: 3.9); seed 0
Paper     Geng et al. 2025, https://arxiv.org/abs/2505.13447
"""

from experiments.config import apply_arg, base_config
from experiments.one_step import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 64
    config.num_train_steps = 2000
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 500
    config.optim.lr = 1e-3
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.99
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.image_shape = (28, 28, 1)
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
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
