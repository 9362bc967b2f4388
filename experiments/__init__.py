"""The families of models, a room each; `genjax.runner.family` is the contract they fulfil."""

# config.experiment -> its module. A run imports its own family only.
FAMILIES = {
    "classifier": "experiments.classifier.classifier",
    "vae": "experiments.vae.vae",
    "vdvae": "experiments.vae.vdvae",
    "vqvae": "experiments.vae.vqvae",
    "gan": "experiments.gan.gan",
    "autoregressive": "experiments.autoregressive.autoregressive",
    "normalizing_flow": "experiments.normalizing_flow.normalizing_flow",
    "diffusion": "experiments.diffusion.diffusion",
    "one_step": "experiments.diffusion.one_step",
    "style_transfer": "experiments.style.style_transfer",
    "adain": "experiments.style.adain",
    "wct": "experiments.style.wct",
    "feedforward_style": "experiments.style.feedforward",
}
