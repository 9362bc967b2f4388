"""PixelRNN on binarised MNIST: seven layers of Diagonal BiLSTM.

Row LSTM: --config.model.kind=row

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelrnn_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     van den Oord et al. 2016, https://arxiv.org/abs/1601.06759
          (published: 79.20, Row LSTM 80.54)
"""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "autoregressive"
    config.batch_size = 64
    config.num_train_steps = 46_875  # 50 epochs
    config.log_every_steps = 100
    config.eval_every_steps = 5000
    config.sample_every_steps = config.checkpoint_every_steps = 5000
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.optim.clip_norm = 1.0
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model = {
        "name": "pixelrnn",
        "class_conditional": False,
        "kind": "diagonal",
        "features": 16,
        "num_layers": 7,
    }
    config.objective = {"head": "bernoulli", "components": 10}
    # Divides the logits.
    config.sample.temperature = 1.0
    smoke = {
        "model.features": 4,
        "model.num_layers": 1,
    }
    return apply_arg(config, arg, smoke)
