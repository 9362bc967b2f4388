"""Transfer of the statistics of one picture's features to those of another, in one step."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from genjax.typing import AnyArray, Array, Float

_PRECISION = lax.Precision.HIGHEST
EPS = 1e-5


def channel_mean_std(
    features: Float[AnyArray, "b h w c"],
) -> tuple[Float[Array, "b 1 1 c"], Float[Array, "b 1 1 c"]]:
    """Computes mean and standard deviation over positions, of each channel of each image."""
    mean = jnp.mean(features, axis=(1, 2), keepdims=True)
    variance = jnp.mean((features - mean) ** 2, axis=(1, 2), keepdims=True)
    return mean, jnp.sqrt(variance + EPS)


def adain(
    content: Float[AnyArray, "b h w c"], style: Float[AnyArray, "b2 h2 w2 c"]
) -> Float[Array, "b h w c"]:
    """Computes adaptive instance normalisation (Huang & Belongie 2017, equation 8).

      sigma(s) (c - mu(c)) / sigma(c) + mu(s)

    Args:
      content: features of the content pictures.
      style: features of the style pictures, one per content or one for all of them.
    """
    (mean, std), (mean_s, std_s) = channel_mean_std(content), channel_mean_std(style)
    return (content - mean) / std * std_s + mean_s


def whiten_and_color(
    content: Float[Array, "h w c"], style: Float[Array, "h2 w2 c"]
) -> Float[Array, "h w c"]:
    """Gives the content's features the mean and covariance of the style's.

    The whitening and colouring transforms (Li et al. 2017, equations 1 and 2):

      E_s D_s^(1/2) E_s^T  E_c D_c^(-1/2) E_c^T (c - mu(c)) + mu(s),   C = E D E^T

    Eigenvalues of the content's covariance below EPS times the largest are left out, and so are
    those that rounding alone makes.
    """
    c, s = (x.reshape(-1, x.shape[-1]) for x in (content, style))
    mean_c, mean_s = c.mean(0), s.mean(0)
    c, s = c - mean_c, s - mean_s
    values, vectors = jnp.linalg.eigh(jnp.matmul(c.T, c, precision=_PRECISION) / len(c))
    # In a content of one colour, what differs from the mean is the rounding of the mean.
    rounding = (16 * jnp.finfo(c.dtype).eps) ** 2 * jnp.sum(mean_c**2)
    kept = values > jnp.maximum(EPS * values[-1], rounding)
    inverse = jnp.where(kept, lax.rsqrt(jnp.where(kept, values, 1)), 0)
    whitening = jnp.matmul(vectors * inverse, vectors.T, precision=_PRECISION)
    values, vectors = jnp.linalg.eigh(jnp.matmul(s.T, s, precision=_PRECISION) / len(s))
    roots = jnp.sqrt(jnp.maximum(values, 0))
    coloring = jnp.matmul(vectors * roots, vectors.T, precision=_PRECISION)
    whitened = jnp.matmul(c, whitening, precision=_PRECISION)
    out = jnp.matmul(whitened, coloring, precision=_PRECISION)
    return (out + mean_s).reshape(content.shape)


def mixture(
    content: Float[AnyArray, "b h w c"],
    stylized: Sequence[Float[AnyArray, "b h w c"]],
    strength: float | int,
    shares: Sequence[float | int],
) -> Float[AnyArray, "b h w c"]:
    """Interpolates between the features of a content and of its stylised versions.

    Args:
      content: the content's own features.
      stylized: the same with the statistics of each style.
      strength: 0 for the content's own features, 1 for the styles'.
      shares: of each style, with sum 1.
    """
    styled = sum(share * x for share, x in zip(shares, stylized, strict=True))
    return content + strength * (styled - content)


mean_std = channel_mean_std
