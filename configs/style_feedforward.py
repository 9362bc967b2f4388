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

from configs.presets import train_for, variants
from experiments.style.feedforward import default_config


@variants
def get_config():
    config = train_for(default_config(), 40_000, batch_size=4, log=100, every=5000)
    config.optim.lr = 1e-3
    config.eval.batch_size = 4
    config.data.update(name="folder:pictures", image_shape=(256, 256, 3), flip="random")
    return config
