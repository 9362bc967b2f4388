"""DDPM on CIFAR-10, the paper's own network of 35.7 M parameters.

The default length is what an accelerator does in about 20 minutes, not the paper's 800,000 steps.
The authors' own weights, as google/ddpm-cifar10-32 has them:
--mode=eval --config.init_from=diffusion_pytorch_model.safetensors

Command   python launch.py --config=configs/ddpm_cifar10.py --config.compute_dtype=bfloat16
Hardware  an accelerator
Time      still to be measured
Number    still to be measured; the paper has FID 3.17 after 800,000 steps, sampled in 1,000
Paper     Ho et al. 2020, https://arxiv.org/abs/2006.11239
"""

from configs.presets import on_cifar10, train_for, variants
from experiments.diffusion.diffusion import NETWORKS, PROCESSES, default_config


@variants
def get_config():
    config = on_cifar10(default_config())
    train_for(config, 40_000, batch_size=128, log=200, every=10_000)
    config.optim.update(lr=2e-4, warmup_steps=5000, clip_norm=1.0)
    config.ema.decay = 0.9999
    config.process = PROCESSES.select("ddpm_linear")
    config.model = NETWORKS.select(
        "unet",
        channels=128,
        multipliers=(1, 2, 2, 2),
        num_blocks=2,
        attention=(16,),
        variant="ddpm",
        dropout=0.1,
    )
    # With sigma_data = 1 the network gets x itself.
    config.objective.update(target="eps", sigma_data=1.0, time_sampling="uniform")
    config.sample.update(sampler="ancestral", schedule="linear", num_steps=1000, clip=True)
    config.eval.vlb_draws = 1
    return config
