"""From a network to a denoiser, and its training loss."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from genjax.diffusion.process import Process, Time, expand
from genjax.diffusion.targets import gain, make_target, split
from genjax.diffusion.weightings import WEIGHTINGS
from genjax.typing import Array, Float

# (scaled x [B, ...], c_noise [B]) -> prediction [B, ...].
Network: TypeAlias = Callable[[Float[Array, "b ..."], Float[Array, " b"]], Float[Array, "b ..."]]


@dataclasses.dataclass(frozen=True)
class Parameterization:
    """The inputs and outputs of a network (Karras et al. 2022, section 5).

    Attributes:
      process: the diffusion process.
      target: a name in `TARGETS`.
      sigma_data: standard deviation of the data.
      scale_input: whether the network gets x / sqrt(alpha^2 sigma_data^2 + sigma^2), of variance 1,
        instead of x; with sigma_data = 1 on a variance preserving process the two are equal.
    """

    process: Process
    target: str = "F"
    sigma_data: float | int = 0.5
    scale_input: bool = True

    def predict(
        self, network: Network, x: Float[Array, "b *shape"], t: Time
    ) -> Float[Array, "b *shape"]:
        """Returns the network's prediction for x at t."""
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), x.shape[:1])
        c_in = 1.0
        if self.scale_input:
            alpha, sigma = self.process.alpha_sigma(t)
            c_in = expand((sigma**2 + (self.sigma_data * alpha) ** 2) ** -0.5, x)
        return network(c_in * x, self.process.c_noise(t))

    def denoise(
        self, network: Network, x: Float[Array, "b *shape"], t: Time
    ) -> Float[Array, "b *shape"]:
        """Returns x0_hat of x at t."""
        prediction = self.predict(network, x, t)
        return split(self.target, prediction, x, self.process, t, self.sigma_data)[0]

    def loss(
        self,
        network: Network,
        x0: Float[Array, "b *shape"],
        eps: Float[Array, "b *shape"],
        t: Time,
        weighting: str = "simple",
    ) -> Float[Array, " b"]:
        """Returns the weighted squared error, averaged over all axes but the first.

        It is computed from the prediction, where it is free of cancellation, and then scaled to the
        error of x_0.
        """
        x = self.process.add_noise(x0, eps, t)
        target = make_target(self.target, x0, eps, self.process, t, self.sigma_data)
        errors = (self.predict(network, x, t) - target) ** 2
        losses = jnp.mean(errors, axis=tuple(range(1, x.ndim)))
        if WEIGHTINGS[weighting] is None:
            return losses
        snr = jnp.exp(self.process.log_snr(t))
        weight = WEIGHTINGS[weighting](snr, self.sigma_data)
        return losses * weight / gain(self.target, self.process, t, self.sigma_data) ** 2
