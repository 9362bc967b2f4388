"""The tutorial's convolutional classifier on CIFAR-10: 122,570 parameters.

Conv 32, pool, Conv 64, pool, Conv 64, Dense 64, Dense 10; Adam; cross-entropy on logits.

Command   python launch.py --mode=prepare --config.data.name=cifar10   (once)
          python launch.py --config=configs/cnn_cifar10.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      287 s for 10 epochs (15,625 steps), 1,937 images/s; 0.86 GB resident at most
Number    eval/accuracy 0.720, eval/nll_nats 0.890, calibration error 0.070, seed 0; the 10,000 test
          images. Published for the tutorial: 70 to 71 %. It overfits from epoch 6 on (nll 0.84).
          Pinned as the feature net cnn_cifar10.
Paper     LeCun et al. 1998, Gradient-based learning applied to document recognition
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "classifier"
    config.batch_size = 32
    config.num_train_steps = 15_625  # 10 epochs
    config.log_every_steps = 125
    config.eval_every_steps = config.checkpoint_every_steps = 3_125
    config.sample_every_steps = 0
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.pixels = "unit"
    config.model = {
        "name": "cnn",
        "features": (32, 64, 64),
        "num_pools": 2,
        "padding": "VALID",
        "hidden": 64,
        "dropout": 0.0,
    }
    config.objective = {"label_smoothing": 0.0}
    config.eval.views = "one"
    return apply_arg(config, arg, {"model.features": (4, 8, 8), "model.hidden": 16})
