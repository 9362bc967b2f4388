r"""Style transfer with the settings of the first tutorial, as meant.

Content block5_conv2, style block1 to 5_conv1 of VGG-19; Gram matrices; Adam 0.02, no total
variation. The tutorial pairs style layers with rows of the image; here each layer's statistics meet
their own target. The weights, 1e4 and 1e-2, are those of the second tutorial.

Command   python launch.py --config=configs/style_gatys_v1.py \
            --config.content=a.jpg --config.style=b.jpg
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      still to be measured
Number    none: look at it
Paper     Gatys et al. 2016, https://arxiv.org/abs/1508.06576
"""

from configs.presets import variants
from experiments.style.style_transfer import default_config


@variants
def get_config():
    config = default_config()
    config.num_train_steps = 1000
    config.optim.lr = 0.02
    config.objective.clip = False
    return config
