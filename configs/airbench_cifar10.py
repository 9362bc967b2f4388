"""The CIFAR-10 speed run: 94 % of the test images in 8 epochs.

Whitened first convolution, identity initialisation, Muon, alternating flips, label smoothing, and
six views of each test image.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/airbench_cifar10.py:seeds=20
Hardware  for an accelerator; its numbers are still to be measured
Time      -
Number    -
Paper     Jordan 2024, https://arxiv.org/abs/2404.00498;
          Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "classifier"
    config.batch_size = 2_000
    config.num_train_steps = 200  # 8 epochs
    config.log_every_steps = 25
    config.eval_every_steps = config.checkpoint_every_steps = 0
    config.sample_every_steps = 0
    config.compute_dtype = "bfloat16"
    config.optim.name = "airbench"
    config.optim.lr = 0.24
    config.optim.momentum = 0.6
    config.optim.weight_decay = 4e-3
    config.optim.schedule = "linear"
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.pixels = "unit"
    config.data.flip = "alternating"
    config.data.crop_padding = 2
    config.data.on_device = True
    config.model = {"name": "airbench", "features": (64, 256, 256)}
    config.objective = {"label_smoothing": 0.2}
    config.eval.views = "multi_crop"
    config.eval.batch_size = 2_000
    return apply_arg(config, arg, {"model.features": (24, 24, 24)})
