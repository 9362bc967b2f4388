"""Giving the features of one picture the statistics of another's, in one step."""

import jax.numpy as jnp
from jax import lax

_PRECISION = lax.Precision.HIGHEST
EPS = 1e-5


def mean_std(features):
    """Mean and deviation of each channel over positions, [B, 1, 1, C] each; [B, H, W, C]."""
    mean = jnp.mean(features, axis=(1, 2), keepdims=True)
    variance = jnp.mean((features - mean) ** 2, axis=(1, 2), keepdims=True)
    return mean, jnp.sqrt(variance + EPS)


def adain(content, style):
    """Adaptive instance normalisation (Huang & Belongie 2017, equation 8).

      sigma(s) (c - mu(c)) / sigma(c) + mu(s)

    Args:
      content, style: [B, H, W, C], [B, H', W', C].
    """
    (mean, std), (mean_s, std_s) = mean_std(content), mean_std(style)
    return (content - mean) / std * std_s + mean_s


def whiten_and_color(content, style):
    """Whitening and colouring (Li et al. 2017, equations 1 and 2): mean and covariance at once.

      E_s D_s^(1/2) E_s^T  E_c D_c^(-1/2) E_c^T (c - mu(c)) + mu(s),   C = E D E^T

    Eigenvalues of the content's covariance below EPS of the largest are left out.

    Args:
      content, style: [H, W, C], [H', W', C].
    """
    c, s = (x.reshape(-1, x.shape[-1]) for x in (content, style))
    mean_c, mean_s = c.mean(0), s.mean(0)
    c, s = c - mean_c, s - mean_s
    values, vectors = jnp.linalg.eigh(jnp.matmul(c.T, c, precision=_PRECISION) / len(c))
    kept = values > EPS * values[-1]
    inverse = jnp.where(kept, lax.rsqrt(jnp.where(kept, values, 1)), 0)
    whitening = jnp.matmul(vectors * inverse, vectors.T, precision=_PRECISION)
    values, vectors = jnp.linalg.eigh(jnp.matmul(s.T, s, precision=_PRECISION) / len(s))
    coloring = jnp.matmul(vectors * jnp.sqrt(jnp.maximum(values, 0)), vectors.T)
    out = jnp.matmul(jnp.matmul(c, whitening, precision=_PRECISION), coloring)
    return (out + mean_s).reshape(content.shape)


def mixture(content, stylized, strength, shares):
    """Between a content's features and those of several styles.

    Args:
      content: [B, H, W, C].
      stylized: the content's with the statistics of each style, a list of [B, H, W, C].
      strength: 0 for the content's own, 1 for the styles'.
      shares: of the styles, adding up to 1.
    """
    styled = sum(share * x for share, x in zip(shares, stylized, strict=True))
    return content + strength * (styled - content)
