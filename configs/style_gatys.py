r"""Style transfer with the settings of the second tutorial, as meant.

Content block5_conv2, style block1 to 5_conv1 of VGG-19; Gram matrices; weights 1e4 and 1e-2, total
variation 30; Adam 0.02 with beta1 0.99 and epsilon 0.1; pixels kept in [0, 1].

Command   python launch.py --config=configs/style_gatys.py \
            --config.content=a.jpg --config.style=b.jpg
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12
Time      0.32 s a step at 224x149, 1.57 s at 512x342, 6.5 s at 1,024x683, random weights (PyTorch
          2.13: 0.34, 2.06, 8.1 s; benchmarks/style_torch.py)
Number    none: look at it. The loss of Adam's 500 steps, L-BFGS reaches in 68; with pixels cut off
          to [0, 1], in 152 (a distilled VGG-19, 128 pixels; benchmarks/style_optimizers.py)
Paper     Gatys et al. 2016, https://openaccess.thecvf.com/content_cvpr_2016/html/
          Gatys_Image_Style_Transfer_CVPR_2016_paper.html
"""

from configs.presets import variants
from experiments.style.style_transfer import default_config


@variants
def get_config():
    config = default_config()
    config.num_train_steps = 500
    config.optim.update(lr=0.02, b1=0.99, eps=0.1)
    config.objective.tv_weight = 30.0
    return config
