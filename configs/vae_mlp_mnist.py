"""The VAE of dense layers, 784-500-20-500-784, on dynamically binarised MNIST.

The form and size of the Flax example, which reports a test -ELBO of about 104 nats after 10 epochs.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/vae_mlp_mnist.py
Hardware  2 CPU cores (AMD EPYC), JAX 0.10.2, Python 3.11
Time      173 s for 30 epochs (14,062 steps), 11,463 images/s
Number    eval/neg_elbo_nats 99.14 (recon 72.29, KL 26.85; 20 of 20 latents active), seed 0; the
          10,000 test images, statically binarised, one posterior sample. The same with
          importance weighting, eval/nll_nats_iw1000 93.76, by --mode=eval
          --config.eval.importance_samples=1000 --config.eval.batch_size=100.
Paper     Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
"""

from experiments.config import apply_arg
from experiments.vae import vae_config


def get_config(arg=""):
    config = vae_config()
    config.batch_size = 128
    config.num_train_steps = 14_062  # 30 epochs
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 2000
    config.sample_every_steps = 7000
    config.optim.lr = 1e-3
    config.data.name = "mnist"
    config.eval.num_samples = 10_000
    config.data.pixels = "binarized_dynamic"
    config.model.name = "mlp"
    config.model.latent_dim = 20
    config.model.encoder_features = config.model.decoder_features = (500,)
    smoke = {"model.encoder_features": (16,), "model.decoder_features": (16,)}
    return apply_arg(config, arg, smoke)
