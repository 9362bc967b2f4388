r"""AdaIN: any style in one pass; the decoder is trained on a folder of pictures.

The encoder is VGG-19 to relu4_1. Contents and styles come from folders; or give a trained decoder
with its encoder, and nothing is trained:

  python launch.py --config=configs/style_adain.py --config.weights=vgg_normalised.pth \
    --config.decoder=decoder.pth --config.content=a.jpg --config.style=b.jpg --config.strength=0.8

Command   python launch.py --config=configs/style_adain.py \
            --config.data.name=folder:/contents --config.style_data=folder:/paintings
Hardware  an accelerator, for the training
Time      still to be measured
Number    still to be measured
Paper     Huang & Belongie 2017, https://arxiv.org/abs/1703.06868
"""

from experiments.adain import adain_config
from experiments.config import apply_arg


def get_config(arg=""):
    config = adain_config()
    config.batch_size = 8
    config.num_train_steps = 160_000
    config.log_every_steps = 100
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 10_000
    config.optim.lr = 1e-4
    config.eval.batch_size = 8
    config.data.name = "folder:pictures"
    config.data.image_shape = (256, 256, 3)
    config.data.flip = "random"
    smoke = {
        "weights": "random",
        "model.layer": "relu2_1",
        "data.image_shape": (16, 16, 3),
        "size": 32,
        "style_size": 32,
        "batch_size": 4,
    }
    return apply_arg(config, arg, smoke)
