r"""Style transfer by the Wasserstein distance of feature moments, from coarse to fine.

Sizes grow by the root of 2; picture and Adam's moments are carried from one to the next, and the
result is an average of the iterates. Replicate padding, because zeros at the edges are no part of a
picture. Every term is relative to its target's own size, so the weights mean the same with any
network.

Command   python launch.py --config=configs/style_w2.py \
            --config.content=a.jpg --config.style=b.jpg
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      still to be measured
Number    none: look at it
Paper     Dowson & Landau 1982 for the distance; the scheme follows crowsonkb/style-transfer-pytorch
"""

from configs.presets import variants
from experiments.style.style_transfer import default_config


@variants
def get_config():
    config = default_config()
    config.update(sizes=(128, 181, 256, 362, 512), size_steps=(400, 200, 200, 200, 200))
    config.optim.update(lr=0.02, b2=0.99)
    config.ema.decay = 0.99
    config.model.update(
        padding="replicate",
        content_layers=("block4_conv2",),
        style_layer_weights=(256.0, 64.0, 16.0, 4.0, 1.0),
    )
    config.objective.update(
        style="wasserstein", relative=True, content_weight=0.3, style_weight=1.0, tv_weight=0.2
    )
    return config
