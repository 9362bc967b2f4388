"""One-step images: a mean flow on CIFAR-10, the network of `flow_cifar10` told one more time.

Command   python launch.py --config=configs/meanflow_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 2.92 in one step, with a network of 55.7 M
Paper     Geng et al. 2025, https://arxiv.org/abs/2505.13447
"""

from configs import flow_cifar10
from experiments.config import apply_arg, base_config
from experiments.one_step import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 256
    config.num_train_steps = 20_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 5000
    config.optim.lr = 6e-4
    config.optim.warmup_steps = 1000
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.9995
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model = flow_cifar10.get_config().model
    config.model.dropout = 0.2
    config.objective.time_mean, config.objective.time_std = -2.0, 2.0
    config.objective.flow_ratio, config.objective.power = 0.25, 0.75
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "model.num_blocks": 1,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
