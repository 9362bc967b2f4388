r"""AdaIN: any style in one pass; the decoder is trained on a folder of pictures.

The encoder is VGG-19 to relu4_1. Contents and styles come from folders; or give a trained decoder
with its encoder, and nothing is trained:

  python launch.py --config=configs/style_adain.py --config.weights=vgg_normalised.pth \
    --config.decoder=decoder.pth --config.content=a.jpg --config.style=b.jpg --config.strength=0.8

Command   python launch.py --config=configs/style_adain.py \
            --config.data.name=folder:/contents --config.style_data=folder:/paintings
Hardware  an accelerator, for the training
Time      still to be measured; drawing, on 2 CPU cores (AMD EPYC) beside other work, JAX 0.10.2:
          0.72 pictures/s at 256x256, 0.19 at 512x512 (benchmarks/adain_speed.py)
Number    still to be measured. A beginning, 800 steps in 7.5 minutes on the same cores, has no more
          than the style's colours, and light where there was some (a cat is not to be told):
          eval/content 6.33, eval/style 0.930 on 100 flowers of 64x64 with two paintings,
          normalised VGG-19 to relu3_1:
            --config.weights=vgg19_normalised_conv1_1_to_conv3_1.npz --config.model.layer=relu3_1
            --config.data.image_shape="(64,64,3)" --config.batch_size=4 --config.optim.lr=3e-4
            --config.num_train_steps=800
Paper     Huang & Belongie 2017, https://arxiv.org/abs/1703.06868
"""

from configs.presets import train_for, variants
from experiments.style.adain import default_config


@variants
def get_config():
    config = train_for(default_config(), 160_000, batch_size=8, log=100, every=10_000)
    config.optim.lr = 1e-4
    config.eval.batch_size = 8
    config.data.update(name="folder:pictures", image_shape=(256, 256, 3), flip="random")
    return config
