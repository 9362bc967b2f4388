"""Gaussian diffusion and flows: processes, targets, losses, samplers, likelihoods. Pure functions.

The signature that everything shares is the denoiser, `denoise(x, t) -> x0_hat`: the posterior mean
of the image given x at time t. `Parameterization.denoise` makes one from a network; guidance,
clipping and inpainting make one from another; every sampler and likelihood takes one.
"""
