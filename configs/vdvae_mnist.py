"""A small VDVAE, 12 stochastic levels at 1, 7, 14 and 28 pixels, on dynamically binarised MNIST.

Command   python launch.py --mode=prepare --config.data.name=mnist   (once)
          python launch.py --config=configs/vdvae_mnist.py
Hardware  an accelerator; still to be measured
Time      still to be measured
Number    still to be measured. Published for a small model of this kind: -ELBO 80.72 nats
          (pytorch-generative).
Paper     Child 2021, https://arxiv.org/abs/2011.10650
"""

from configs.presets import on_mnist, train_for, variants
from experiments.vae.vdvae import default_config


@variants
def get_config():
    config = on_mnist(default_config(), binarized=True)
    train_for(config, 100_000, batch_size=128, log=100, every=5000, sample=10_000)
    config.optim.update(name="adamw", schedule="cosine", warmup_steps=200)
    config.optim.update(b1=0.9, b2=0.9, weight_decay=0.01, clip_norm=200.0, skip_norm=3000.0)
    config.ema.decay = 0.999
    config.nonfinite.policy = "skip"
    config.model.update(factors=(2, 2, 7), encoder_blocks=(2, 2, 2, 1), decoder_blocks=(3, 4, 3, 2))
    config.objective.likelihood = "bernoulli"
    return config
