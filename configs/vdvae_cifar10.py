"""A small VDVAE on CIFAR-10: width 128, 24 stochastic levels at 1 to 32 pixels.

The paper's has 39 million parameters and 45 levels; this is for tens of minutes, not days.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/vdvae_cifar10.py
Hardware  an accelerator; still to be measured
Time      still to be measured
Number    still to be measured. Published for the large model: 2.87 bits per dimension.
Paper     Child 2021, https://arxiv.org/abs/2011.10650
"""

from experiments.config import apply_arg
from experiments.vdvae import vdvae_config


def get_config(arg=""):
    config = vdvae_config()
    config.batch_size = 128
    config.num_train_steps = 40_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 5000
    config.sample_every_steps = 5000
    config.compute_dtype = "bfloat16"
    config.optim.name = "adamw"
    config.optim.lr = 6e-4
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    config.optim.b1, config.optim.b2 = 0.9, 0.9
    config.optim.weight_decay = 0.01
    config.optim.clip_norm = 200.0
    config.optim.skip_norm = 3000.0
    config.ema.decay = 0.9995
    config.nonfinite.policy = "skip"
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model.factors = (2, 2, 2, 4)
    config.model.encoder_blocks = (4, 3, 3, 2, 2)
    config.model.decoder_blocks = (8, 7, 5, 3, 1)
    smoke = {
        "optim.warmup_steps": 2,
        "nonfinite.policy": "raise",  # "skip" takes XLA:CPU a minute to compile
        "compute_dtype": "float32",
        "model.width": 8,
        "model.bottleneck": 4,
        "model.latent_channels": 2,
        "model.encoder_blocks": (0, 1, 0, 0, 0),
        "model.decoder_blocks": (0, 1, 0, 0, 1),
    }
    return apply_arg(config, arg, smoke)
