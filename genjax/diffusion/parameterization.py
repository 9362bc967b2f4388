"""From a network to a denoiser, and its training loss."""

import dataclasses

import jax.numpy as jnp

from genjax.diffusion.process import Process, expand
from genjax.diffusion.targets import gain, make_target, split
from genjax.diffusion.weightings import WEIGHTINGS


@dataclasses.dataclass(frozen=True)
class Parameterization:
    """What goes into a network and what comes out of it (Karras et al. 2022, section 5).

    A network is a function (x [B, ...], c_noise [B]) -> [B, ...].

    Attributes:
      process: a `Process`.
      target: a name in `TARGETS`.
      sigma_data: standard deviation of the data.
      scale_input: whether the network sees x / sqrt(alpha^2 sigma_data^2 + sigma^2), of variance 1;
        with sigma_data = 1 on a variance-preserving process that is x itself.
    """

    process: Process
    target: str = "F"
    sigma_data: float = 0.5
    scale_input: bool = True

    def predict(self, network, x, t):
        """The network's word on x [B, ...] at t, a scalar or [B]."""
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), x.shape[:1])
        c_in = 1.0
        if self.scale_input:
            alpha, sigma = self.process.alpha_sigma(t)
            c_in = expand((sigma**2 + (self.sigma_data * alpha) ** 2) ** -0.5, x)
        return network(c_in * x, self.process.c_noise(t))

    def denoise(self, network, x, t):
        """x0_hat [B, ...] of x at t."""
        prediction = self.predict(network, x, t)
        return split(self.target, prediction, x, self.process, t, self.sigma_data)[0]

    def loss(self, network, x0, eps, t, weighting="simple"):
        """Weighted squared error, mean over dimensions: [B].

        Measured on the prediction, where it does not cancel, and scaled to what it is in x_0.
        """
        x = self.process.add_noise(x0, eps, t)
        wanted = make_target(self.target, x0, eps, self.process, t, self.sigma_data)
        errors = (self.predict(network, x, t) - wanted) ** 2
        losses = jnp.mean(errors, axis=tuple(range(1, x.ndim)))
        if WEIGHTINGS[weighting] is None:
            return losses
        snr = jnp.exp(self.process.log_snr(t))
        weight = WEIGHTINGS[weighting](snr, self.sigma_data)
        return losses * weight / gain(self.target, self.process, t, self.sigma_data) ** 2
