"""A small PixelCNN++ on CIFAR-10: three blocks of 96 channels at each of three resolutions.

Data-dependent initialisation of the normalised weights, Polyak averaging (`ema`), dropout. The
published model has five blocks of 160 channels: 2.92 bits/dim.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/pixelcnn_pp_cifar10.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/bpd: the 10,000 test images)
Paper     Salimans et al. 2017, https://arxiv.org/abs/1701.05517
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "autoregressive"
    config.batch_size = 256
    config.num_train_steps = 20_000
    config.log_every_steps = 100
    config.eval_every_steps = 2000
    config.sample_every_steps = config.checkpoint_every_steps = 2000
    config.compute_dtype = "bfloat16"
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 500
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.9995
    config.data.name = "cifar10"
    config.eval.num_samples = 10_000
    config.eval.net = "cnn_cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.flip = "random"
    config.model = {
        "name": "pixelcnn_pp",
        "class_conditional": False,
        "features": 96,
        "blocks": 3,
        "resolutions": 3,
        "dropout": 0.3,
    }
    config.objective = {"head": "logistic_mixture", "components": 10}
    # Divides the logits.
    config.sample.temperature = 1.0
    smoke = {
        "optim.warmup_steps": 0,
        "model.features": 4,
        "model.blocks": 1,
        "model.resolutions": 2,
        "objective.components": 2,
        "compute_dtype": "float32",
    }
    return apply_arg(config, arg, smoke)
