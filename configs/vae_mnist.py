"""The tutorial's convolutional VAE with a two-dimensional latent, on MNIST."""

from experiments.config import apply_arg, base_config


def get_config(arg=""):
    config = base_config()
    config.experiment = "vae"
    config.batch_size = 128
    config.num_train_steps = 14_062  # 30 epochs
    config.log_every_steps = 100
    config.eval_every_steps = 1000
    config.sample_every_steps = config.checkpoint_every_steps = 2000
    config.optim.lr = 1e-3
    config.data.name = "mnist"
    config.data.pixels = "binarized_dynamic"
    config.model = {
        "name": "conv",
        "latent_dim": 2,
        "encoder_features": (32, 64),
        "encoder_hidden": 16,
        "decoder_features": (64, 32),
    }
    config.objective = {"likelihood": "bernoulli", "beta": 1.0}
    smoke = {
        "model.encoder_features": (4, 8),
        "model.encoder_hidden": 8,
        "model.decoder_features": (8, 4),
    }
    return apply_arg(config, arg, smoke)
