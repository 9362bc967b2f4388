"""Priors p(z) of a VAE: a standard normal, a learned mixture of normals, a VampPrior."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.data.transforms import unit
from genjax.objectives.elbo import log_normal
from genjax.objectives.priors import mixture_log_prob, mixture_sample
from genjax.typing import AnyArray, Array, Float, Key, UInt8

# images [K, H, W, C] -> mean and log-variance of q(z | x), each [K, D].
Encode = Callable[[Array], tuple[Array, Array]]


@runtime_checkable
class Prior(Protocol):
    """A prior over latents z [D]; its parameters are an entry of the VAE's parameters.

    Attributes:
      closed_form: whether KL(q || p) of a diagonal normal q is known in closed form.
      num_init_examples: training images that `init` is given.
    """

    closed_form: bool = False
    num_init_examples: int = 0

    def init(self, key: Key[Array, ""], latent_dim: int, images: AnyArray | None) -> Any:
        """Initialises the prior's parameters; None for a prior without any."""
        return None

    def log_prob(self, params: Any, encode: Encode, z: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        """Returns log p(z) in nats."""
        ...

    def sample(
        self,
        params: Any,
        encode: Encode,
        keys: Key[Array, " b"],
        latent_dim: int,
        temperature: float,
    ) -> Float[Array, "b d"]:
        """Draws z, row i by keys[i]; `temperature` scales the standard deviations."""
        ...


@dataclasses.dataclass(frozen=True)
class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    closed_form = True

    def log_prob(self, params, encode, z):
        return log_normal(z, 0.0, jnp.zeros(()))

    def sample(self, params, encode, keys, latent_dim, temperature):
        return temperature * rng.normal(keys, (latent_dim,))


@dataclasses.dataclass(frozen=True)
class _MixturePrior(Prior):
    """A mixture of diagonal normals.

    Attributes:
      num_components: K.
    """

    num_components: int = 500

    def components(self, params: Any, encode: Encode) -> tuple[Array, Array, Array]:
        """Returns means [K, D], log-variances [K, D] and logits [K]."""
        raise NotImplementedError

    def log_prob(self, params, encode, z):
        return mixture_log_prob(z, *self.components(params, encode))

    def sample(self, params, encode, keys, latent_dim, temperature):
        return mixture_sample(keys, *self.components(params, encode), temperature)


@dataclasses.dataclass(frozen=True)
class Mixture(_MixturePrior):
    """p(z) = sum_k w_k N(z; m_k, diag v_k), all learned."""

    def init(self, key, latent_dim, images):
        shape = (self.num_components, latent_dim)
        means = jax.random.normal(jax.random.fold_in(key, 0), shape)
        logits = jnp.zeros(self.num_components)
        return {"means": means, "log_variances": jnp.zeros(shape), "logits": logits}

    def components(self, params, encode):
        return tuple(params[k] for k in ("means", "log_variances", "logits"))


@dataclasses.dataclass(frozen=True)
class VampPrior(_MixturePrior):
    """p(z) = 1/K sum_k q(z | u_k) of K learned pseudo-inputs u_k (Tomczak & Welling 2018).

    They start as the first K training images.
    """

    @property
    def num_init_examples(self) -> int:
        return self.num_components

    def init(self, key, latent_dim, images: UInt8[AnyArray, "k h w c"]):
        return {"pseudo_inputs": unit(images)}

    def components(self, params, encode):
        mean, log_variance = encode(jnp.clip(params["pseudo_inputs"], 0.0, 1.0))
        return mean, log_variance, jnp.zeros(len(mean))


# config.prior.name -> number of components -> `Prior`
PRIORS = {
    "standard_normal": lambda components: StandardNormal(),
    "mixture": Mixture,
    "vamp": VampPrior,
}
