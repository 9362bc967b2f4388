"""Images in one or two steps: consistency training on CIFAR-10, the network of `edm_cifar10`.

From scratch, or, in far fewer steps, tuned from a diffusion model: a run of `edm_cifar10`
(--config.init_from=runs/edm_cifar10), or the authors' own weights in their size
(--config.init_from=edm-cifar10-32x32-cond-vp.pkl --config.model.multipliers='(2,2,2)'
--config.model.num_blocks=4), in this way: stage 0 is diffusion itself.

Command   python launch.py --config=configs/consistency_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 3.60 in one step and 2.11 in two, tuned from EDM's
          weights of 55.7 M without classes for 400,000 steps
Paper     Geng et al. 2024, https://arxiv.org/abs/2406.14548
"""

from configs import edm_cifar10
from experiments.config import apply_arg, base_config
from experiments.one_step import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 128
    config.num_train_steps = 20_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 5000
    config.optim.lr = 1e-4
    config.optim.warmup_steps = 1000  # Adam with a warm-up, where the paper has RAdam
    config.ema.decay = 0.9999
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.process = {"name": "edm"}
    config.model = edm_cifar10.get_config().model
    config.model.dropout = 0.2
    config.objective.name = "consistency"
    config.objective.time_mean, config.objective.time_std = -1.1, 2.0
    config.sample.num_steps, config.sample.schedule = 2, "karras"
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "model.num_blocks": 1,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
