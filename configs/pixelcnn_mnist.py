"""PixelCNN in the tutorial's sizes (one 7x7 and seven 3x3 layers of 64), on binarised MNIST.

As it was meant: the convolutions are masked, type A then B (the tutorial's are not, and copy their
input), and the pixels are binary draws. The tutorial's 256-way softmax on grey pixels:
--config.objective.head=softmax --config.data.pixels=unit

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelcnn_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.12.0, Python 3.12; the whole run is for an accelerator
Time      16 min for 2,000 of the 93,750 steps, 150 images/s, beside other work
Number    2,000 steps (--config.num_train_steps=2000): eval/nll_nats 94.02, the 10,000 test images,
          statically binarised; eval/fd_cnn_mnist_6d53cf07_10k 169, seed 0. Half of the samples and
          most completions of upper halves read as digits. The whole run still to be measured.
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "autoregressive"
    config.batch_size = 64
    config.num_train_steps = 93_750  # 100 epochs
    config.log_every_steps = 100
    config.eval_every_steps = 5000
    config.sample_every_steps = config.checkpoint_every_steps = 5000
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model = {
        "name": "pixelcnn",
        "class_conditional": False,
        "features": 64,
        "num_layers": 7,
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
