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

from experiments.style_transfer import apply_style_arg, style_config


def get_config(arg=""):
    config = style_config()
    config.num_train_steps = 200
    config.sizes = (128, 181, 256, 362, 512)
    config.size_steps = (400, 200, 200, 200, 200)
    config.optim.lr = 0.02
    config.optim.b2 = 0.99
    config.ema.decay = 0.99
    config.model.padding = "replicate"
    config.model.content_layers = ("block4_conv2",)
    config.model.style_layer_weights = (256.0, 64.0, 16.0, 4.0, 1.0)
    config.objective.style = "wasserstein"
    config.objective.relative = True
    config.objective.content_weight = 0.3
    config.objective.style_weight = 1.0
    config.objective.tv_weight = 0.2
    return apply_style_arg(config, arg, {"num_train_steps": 4})
