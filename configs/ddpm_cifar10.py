"""DDPM on CIFAR-10, the paper's own network of 35.7 M parameters.

The default length is what an accelerator does in about 20 minutes, not the paper's 800,000 steps.
The authors' own weights, as google/ddpm-cifar10-32 has them:
--mode=eval --config.init_from=diffusion_pytorch_model.safetensors

Command   python launch.py --config=configs/ddpm_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 3.17 after 800,000 steps, sampled in 1,000
Paper     Ho et al. 2020, https://arxiv.org/abs/2006.11239
"""

from experiments.config import apply_arg, base_config
from experiments.diffusion import add_fields


def get_config(arg=""):
    config = base_config()
    add_fields(config)
    config.batch_size = 128
    config.num_train_steps = 40_000
    config.log_every_steps = 200
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 10_000
    config.optim.lr = 2e-4
    config.optim.warmup_steps = 5000
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.9999
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.process = {"name": "ddpm_linear"}
    config.model = {
        "name": "unet",
        "conditional": False,
        "channels": 128,
        "multipliers": (1, 2, 2, 2),
        "num_blocks": 2,
        "attention": (16,),
        "variant": "ddpm",
        "dropout": 0.1,
        "patch_size": 1,
        "remat": False,
    }
    config.objective.target = "eps"
    config.objective.sigma_data = 1.0  # the network sees x itself
    config.objective.time_sampling = "uniform"
    config.sample.sampler, config.sample.schedule = "ancestral", "linear"
    config.sample.num_steps = 1000
    config.sample.clip = True
    config.eval.vlb_draws = 1
    smoke = {
        "model.channels": 8,
        "model.multipliers": (1,),
        "model.attention": (),
        "model.num_blocks": 1,
        "sample.num_steps": 4,
        "optim.warmup_steps": 2,
    }
    return apply_arg(config, arg, smoke)
