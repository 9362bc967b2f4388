"""A small PixelSNAIL on binarised MNIST: causal convolutions and attention.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/pixelsnail_mnist.py
Hardware  for an accelerator
Time      still to be measured
Number    still to be measured (eval/nll_nats: the 10,000 test images, statically binarised)
Paper     Chen et al. 2018, https://arxiv.org/abs/1712.09763
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
    config.optim.warmup_steps = 500
    config.optim.clip_norm = 1.0
    config.ema.decay = 0.999
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model = {
        "name": "pixelsnail",
        "class_conditional": False,
        "features": 64,
        "blocks": 8,
        "layers": 2,
        "heads": 1,
        "key_features": 16,
        "value_features": 32,
        "dropout": 0.0,
    }
    config.objective = {"head": "bernoulli", "components": 10}
    # Divides the logits.
    config.sample.temperature = 1.0
    smoke = {
        "optim.warmup_steps": 0,
        "model.features": 4,
        "model.blocks": 1,
        "model.layers": 1,
        "model.key_features": 2,
        "model.value_features": 4,
    }
    return apply_arg(config, arg, smoke)
