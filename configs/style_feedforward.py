r"""A network for one style, with instance normalisation and enlargements before its convolutions.

Losses of VGG-16's relu1_2, relu2_2, relu3_3, relu4_3 and content relu3_3, as in the paper, each
relative to its target's own size. `--mode=sample --config.content=b.jpg` draws more pictures.

Command   python launch.py --config=configs/style_feedforward.py \
            --config.data.name=folder:/contents --config.style=b.jpg --config.content=a.jpg
Hardware  an accelerator, for the training
Time      still to be measured
Number    still to be measured
Paper     Johnson et al. 2016, https://arxiv.org/abs/1603.08155; Ulyanov et al. 2016,
          https://arxiv.org/abs/1607.08022
"""

from experiments.config import apply_arg
from experiments.feedforward_style import feedforward_config


def get_config(arg=""):
    config = feedforward_config()
    config.batch_size = 4
    config.num_train_steps = 40_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 5000
    config.optim.lr = 1e-3
    config.eval.batch_size = 4
    config.data.name = "folder:pictures"
    config.data.image_shape = (256, 256, 3)
    config.data.flip = "random"
    smoke = {
        "weights": "random",
        "model.content_layers": ("relu1_1",),
        "model.style_layers": ("relu1_1",),
        "model.channels": 4,
        "model.num_blocks": 0,
        "data.image_shape": (12, 12, 3),
        "size": 24,
        "style_size": 24,
        "batch_size": 4,
    }
    return apply_arg(config, arg, smoke)
