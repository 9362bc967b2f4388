"""Gated PixelCNN on binarised MNIST: two stacks, no blind spot, dilated layers.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/gated_pixelcnn_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1606.05328
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "autoregressive"
    config.batch_size = 128
    config.num_train_steps = 46_875  # 100 epochs
    config.log_every_steps = 100
    config.eval_every_steps = 2500
    config.sample_every_steps = config.checkpoint_every_steps = 2500
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.ema.decay = 0.999
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model = {
        "name": "gated_pixelcnn",
        "class_conditional": False,
        "features": 64,
        "dilations": (1, 2, 1, 4, 1, 2, 1),
        "first_kernel": 7,
        "kernel": 3,
        "dropout": 0.0,
    }
    config.objective = {"head": "bernoulli", "components": 10}
    # Divides the logits.
    config.sample.temperature = 1.0
    smoke = {
        "model.features": 6,
        "model.dilations": (1, 2),
    }
    return apply_arg(config, arg, smoke)
