"""ResNet-18 on CIFAR-10: SGD with momentum, crops, flips, label smoothing.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/resnet18_cifar10.py
Hardware  for an accelerator; its numbers are still to be measured
Time      -
Number    -
Paper     He et al. 2016, https://arxiv.org/abs/1512.03385
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "classifier"
    config.batch_size = 128
    config.num_train_steps = 78_200  # 200 epochs
    config.log_every_steps = 200
    config.eval_every_steps = config.checkpoint_every_steps = 3_910
    config.sample_every_steps = 0
    config.compute_dtype = "bfloat16"
    config.optim.name = "sgd"
    config.optim.lr = 0.1
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 1_950
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.pixels = "symmetric"
    config.data.flip = "random"
    config.data.crop_padding = 4
    config.data.on_device = True
    config.model = {"name": "resnet", "blocks": (2, 2, 2, 2), "width": 64}
    config.objective = {"label_smoothing": 0.1}
    config.eval.views = "one"
    return apply_arg(config, arg, {"model.width": 4, "optim.warmup_steps": 2})
