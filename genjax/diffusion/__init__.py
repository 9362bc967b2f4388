"""Gaussian diffusion and flows: processes, targets, losses, samplers, likelihoods. Pure functions.

Everything meets in one signature, the denoiser: `denoise(x, t) -> x0_hat`, the mean of the image
given what is seen of it at time t. A network becomes one by `Parameterization.denoise`; guidance,
clipping and inpainting make one of another; every sampler and likelihood takes one.
"""
