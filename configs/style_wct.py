r"""Style transfer by whitening and colouring, with a distilled VGG-19.

Nothing is trained: encoders and decoders of five levels, encoder1.npz to decoder5.npz with the
names of `genjax.weights.vgg`, come from MingSun-Tse/Collaborative-Distillation (CVPR 2020).

Command   python launch.py --config=configs/style_wct.py \
            --config.weights='/path/encoder{}.npz' --config.decoder='/path/decoder{}.npz' \
            --config.content=a.jpg --config.style=b.jpg
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      1.8 s for 450x299, beside other work, without compiling
Number    none: a cat and The Starry Night take on its blues and strokes
Paper     Li et al. 2017, https://arxiv.org/abs/1705.08086
"""

from configs.presets import variants
from experiments.style.wct import default_config


@variants
def get_config():
    return default_config()
