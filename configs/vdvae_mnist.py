"""A small VDVAE, 12 stochastic levels at 1, 7, 14 and 28 pixels, on dynamically binarised MNIST.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/vdvae_mnist.py
Hardware  an accelerator; still to be measured
Time      still to be measured
Number    still to be measured. Published for a small model of this kind: -ELBO 80.72 nats
          (pytorch-generative).
Paper     Child 2021, https://arxiv.org/abs/2011.10650
"""

from experiments.config import apply_arg
from experiments.vdvae import vdvae_config


def get_config(arg=""):
    config = vdvae_config()
    config.batch_size = 128
    config.num_train_steps = 100_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 5000
    config.sample_every_steps = 10_000
    config.optim.name = "adamw"
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 200
    config.optim.b1, config.optim.b2 = 0.9, 0.9
    config.optim.weight_decay = 0.01
    config.optim.clip_norm = 200.0
    config.optim.skip_norm = 3000.0
    config.ema.decay = 0.999
    config.nonfinite.policy = "skip"
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model.factors = (2, 2, 7)
    config.model.width, config.model.bottleneck = 128, 32
    config.model.encoder_blocks = (2, 2, 2, 1)
    config.model.decoder_blocks = (3, 4, 3, 2)
    config.objective.likelihood = "bernoulli"
    smoke = {
        "optim.warmup_steps": 2,
        "nonfinite.policy": "raise",  # "skip" takes XLA:CPU a minute to compile
        "model.width": 8,
        "model.bottleneck": 4,
        "model.latent_channels": 2,
        "model.encoder_blocks": (0, 1, 0, 0),
        "model.decoder_blocks": (0, 1, 0, 1),
    }
    return apply_arg(config, arg, smoke)
