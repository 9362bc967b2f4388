"""A small masked PixelCNN on the embedded digits: minutes on two cores.

Command   python launch.py --config=configs/pixelcnn_digits.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      about 8 min on a busy machine (150 images/s)
Number    eval/nll_nats 257.7 (0.474 bits/dim), seed 0, 1,000 steps, 8,241 parameters; the 382 test
          images, statically binarised. The 8x8 digits are enlarged to 28x28, so many pixels are
          grey and their binarisation is noise: not comparable with MNIST. One run, which was
          stopped by a signal at step 823 and resumed.
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "autoregressive"
    config.batch_size = 64
    config.num_train_steps = 1000
    config.optim.lr = 2e-3
    config.optim.schedule = "cosine"
    config.data.name = "digits"
    config.eval.num_samples = 1_000
    config.data.pixels = "binarized_dynamic"
    config.sample.num = 16
    config.model = {
        "name": "pixelcnn",
        "class_conditional": False,
        "features": 16,
        "num_layers": 5,
        "first_kernel": 7,
        "kernel": 3,
        "residual": True,
    }
    config.objective = {"head": "bernoulli", "components": 10}
    # Divides the logits.
    config.sample.temperature = 1.0
    smoke = {
        "model.features": 6,
        "model.num_layers": 1,
    }
    return apply_arg(config, arg, smoke)
