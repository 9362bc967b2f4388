"""Losses of style transfer, on activations [H, W, C] of one image.

A style is represented by statistics of activations F over positions p, each with a weight
w_p >= 0. All are functions of sums over positions, so that an image can be processed in tiles or
regions and the sums added up:

  n = sum_p w_p,   s1 = sum_p w_p F_p,   s2 = sum_p w_p F_p F_p^T

  gram         G = s2 / n                           mean (G - G')^2           (Gatys et al. 2016)
  mean_std     mu = s1 / n, sigma = sqrt(diag C)    |mu - mu'|^2 + |sigma - sigma'|^2, over C
                                                                              (Li et al. 2017)
  wasserstein  mu, C = s2 / n - mu mu^T             |mu - mu'|^2 + tr(C + C' - 2 (C C')^(1/2)),
               over C: the squared 2-Wasserstein distance of normal distributions (Dowson & Landau
               1982)

A prime marks the target. The Gram matrix is divided by the number of positions, as in the
tutorials, not by 4 n^2 C^2 as in the paper, so that images of any size can be compared.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.numerics import nonzero
from genjax.typing import AnyArray, Array, Float, Num

Features = Float[AnyArray, "h w c"]
Weights = Num[AnyArray, "h w"] | None
Sums = dict[str, Any]  # of arrays

_PRECISION = lax.Precision.HIGHEST  # differences of large, nearly equal numbers follow
EPS = 1e-5  # relative to the largest eigenvalue or variance, smaller ones are rounding


@dataclasses.dataclass(frozen=True)
class StyleLoss:
    """A style loss as sums and their comparison.

    Attributes:
      sums: (activations [H, W, C], weights [H, W] or None for ones) -> {name: array}.
      distance: (sums, the target's) -> scalar, 0 for equal statistics.
      additive: whether sums of parts of an image add up, and weights are supported.
      prepare: the target's sums -> the same and intermediate results, which `distance` would
        otherwise compute at every call.
    """

    sums: Callable[..., Sums]
    distance: Callable[[Sums, Sums], Array]
    additive: bool = True
    prepare: Callable[[Sums], Sums] = lambda sums: sums


# --- Sums and statistics --------------------------------------------------------------------------


def _weighted(features, weights):
    """Returns (F [P, C], w F [P, C], n)."""
    flat = features.reshape(-1, features.shape[-1])
    if weights is None:
        return flat, flat, np.asarray(flat.shape[0], flat.dtype)
    weights = weights.reshape(-1, 1).astype(flat.dtype)
    return flat, flat * weights, weights.sum()


def gram_sums(features: Features, weights: Weights = None) -> Sums:
    """Computes n and s2."""
    flat, scaled, n = _weighted(features, weights)
    return {"n": n, "s2": jnp.matmul(scaled.T, flat, precision=_PRECISION)}


def mean_std_sums(features: Features, weights: Weights = None) -> Sums:
    """Computes n, s1 and the diagonal of s2."""
    flat, scaled, n = _weighted(features, weights)
    return {"n": n, "s1": scaled.sum(0), "s2": (scaled * flat).sum(0)}


def moment_sums(features: Features, weights: Weights = None) -> Sums:
    """Computes n, s1 and s2."""
    _, scaled, _ = _weighted(features, weights)
    return {**gram_sums(features, weights), "s1": scaled.sum(0)}


def positions(sums: Sums) -> Any:
    """Returns n as a divisor: 1 for a region without positions, and for sums without n.

    An n that is known to be positive, since it is a constant or by an entry "full", is returned as
    it is: the program is then the one without regions, to the last bit.
    """
    n = sums.get("n", 1.0)
    constant = isinstance(n, float | np.ndarray | np.generic) and n > 0
    return n if constant or sums.get("full", False) else nonzero(jnp.asarray(n))


def _mean(sums, name):
    """Returns a sum per position; 0 of a region without any."""
    return sums[name] / positions(sums)


def gram(sums: Sums) -> Float[AnyArray, "c c"]:
    """Returns G."""
    return _mean(sums, "s2")


def mean_covariance(sums: Sums) -> tuple[Float[AnyArray, " c"], Float[AnyArray, "c c"]]:
    """Returns mu and C."""
    mean = _mean(sums, "s1")
    return mean, gram(sums) - jnp.outer(mean, mean)


def mean_std(sums: Sums) -> tuple[Float[AnyArray, " c"], Float[Array, " c"]]:
    """Returns mu and sigma.

    Variances are at least EPS times the largest mean square; smaller ones, and those that rounding
    made negative, have no gradient.
    """
    mean, square = _mean(sums, "s1"), _mean(sums, "s2")
    # Not a subnormal number, which is 0 on most devices: the root has no derivative there.
    floor = jnp.maximum(EPS * jnp.max(square), jnp.finfo(square.dtype).tiny)
    return mean, jnp.sqrt(jnp.maximum(square - mean**2, lax.stop_gradient(floor)))


# --- Distances ------------------------------------------------------------------------------------


def gram_distance(sums: Sums, target: Sums) -> Float[Array, ""]:
    """Computes mean (G - G')^2."""
    return jnp.mean((gram(sums) - gram(target)) ** 2)


def mean_std_distance(sums: Sums, target: Sums) -> Float[Array, ""]:
    """Computes the distance of means and standard deviations, divided by C."""
    (mean, std), (mean_t, std_t) = mean_std(sums), mean_std(target)
    return jnp.mean((mean - mean_t) ** 2) + jnp.mean((std - std_t) ** 2)


def wasserstein_distance(sums: Sums, target: Sums) -> Float[Array, ""]:
    """Computes the squared 2-Wasserstein distance of normal distributions, divided by C."""
    (mean, cov), (mean_t, cov_t) = mean_covariance(sums), mean_covariance(target)
    return wasserstein2(mean, cov, mean_t, cov_t, target.get("root")) / mean.shape[0]


def with_root(sums: Sums) -> Sums:
    """Adds the root of the covariance, so that no step has to compute it again."""
    return {**sums, "root": matrix_sqrt(mean_covariance(sums)[1])}


def wasserstein2(
    mean: Float[AnyArray, " c"],
    cov: Float[AnyArray, "c c"],
    mean_t: Float[AnyArray, " c"],
    cov_t: Float[AnyArray, "c c"],
    root: Float[AnyArray, "c c"] | None = None,
) -> Float[Array, ""]:
    """Computes the squared 2-Wasserstein distance of N(mean, cov) and N(mean_t, cov_t).

    Differentiable in the first two arguments, also at singular covariances. `root` is cov_t^(1/2);
    None to compute it.
    """
    root = matrix_sqrt(lax.stop_gradient(cov_t)) if root is None else root
    middle = jnp.matmul(jnp.matmul(root, cov, precision=_PRECISION), root, precision=_PRECISION)
    cross = trace_sqrt((middle + middle.T) / 2)
    return jnp.sum((mean - mean_t) ** 2) + jnp.trace(cov) + jnp.trace(cov_t) - 2 * cross


def matrix_sqrt(matrix: Float[AnyArray, "c c"]) -> Float[Array, "c c"]:
    """Computes the root of a symmetric, positive semi-definite matrix.

    Negative eigenvalues count as 0.
    """
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    roots = jnp.sqrt(jnp.maximum(values, 0))
    return jnp.matmul(vectors * roots, vectors.T, precision=_PRECISION)


@jax.custom_jvp
def trace_sqrt(matrix: Float[AnyArray, "c c"]) -> Float[Array, ""]:
    """Computes tr M^(1/2) of a symmetric, positive semi-definite matrix.

    d tr M^(1/2) = 1/2 tr(M^(-1/2) dM), without the differences of eigenvalues that the derivative
    of an eigendecomposition divides by. Eigenvalues below EPS^2 times the largest are rounding, and
    the derivative leaves them out.
    """
    return jnp.sum(jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(matrix), 0)))


@trace_sqrt.defjvp
def _trace_sqrt_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    values = jnp.maximum(values, 0)
    floor = jnp.maximum(EPS**2 * values[-1], jnp.finfo(values.dtype).tiny)
    inverse = jnp.where(values > floor, lax.rsqrt(jnp.maximum(values, floor)), 0)
    gradient = jnp.matmul(vectors * (inverse / 2), vectors.T, precision=_PRECISION)
    return jnp.sum(jnp.sqrt(values)), jnp.sum(gradient * change)


def total_variation(image: Features) -> Float[Array, ""]:
    """Sums the absolute differences of neighbouring pixels.

    Anisotropic, as `tf.image.total_variation`.
    """
    return jnp.sum(jnp.abs(image[1:] - image[:-1])) + jnp.sum(jnp.abs(image[:, 1:] - image[:, :-1]))


# --- Distances of sets of activations -------------------------------------------------------------


def some_positions(features: Features, most: int = 1024) -> Float[AnyArray, "n c"]:
    """Selects at most `most` positions on a regular grid."""
    height, width, channels = features.shape
    step = 1
    while -(-height // step) * -(-width // step) > most:
        step += 1
    return features[::step, ::step].reshape(-1, channels)


def cosine_distances(x: Float[AnyArray, "n c"], y: Float[AnyArray, "m c"]) -> Float[Array, "n m"]:
    """Computes 1 - cos of the angle between each x and each y."""

    def directions(z):
        tiny = jnp.finfo(z.dtype).eps
        return z * lax.rsqrt(jnp.sum(z**2, axis=1, keepdims=True) + tiny)

    return 1 - jnp.matmul(directions(x), directions(y).T, precision=_PRECISION)


def self_similarity_distance(
    x: Float[AnyArray, "n c"], y: Float[AnyArray, "n c"]
) -> Float[Array, ""]:
    """Compares the distances within two images (Kolkin et al. 2019, equation 8).

    Args:
      x, y: activations of the images at the same positions.

    Returns:
      The mean over pairs of |D_ij / sum_i D_ij - D'_ij / sum_i D'_ij|, times n so that it does not
      shrink with more positions.
    """

    def normalized(z):
        distances = cosine_distances(z, z)
        total = distances.sum(0, keepdims=True)
        # Of equal activations, such as those of a picture of one colour, only rounding is left.
        rounding = 8 * len(z) * float(jnp.finfo(z.dtype).eps)
        return jnp.where(total > rounding, distances, 0) / nonzero(total, rounding)

    return x.shape[0] * jnp.mean(jnp.abs(normalized(x) - normalized(y)))


def relaxed_emd(x: Float[AnyArray, "n c"], y: Float[AnyArray, "m c"]) -> Float[Array, ""]:
    """Computes the relaxed earth mover's distance of two sets of activations.

    The mean distance to the nearest neighbour in the other set, the larger one of both directions
    (Kolkin et al. 2019, equation 5).
    """
    distances = cosine_distances(x, y)
    return jnp.maximum(distances.min(1).mean(), distances.min(0).mean())


STYLE_LOSSES = {
    "gram": StyleLoss(gram_sums, gram_distance),
    "mean_std": StyleLoss(mean_std_sums, mean_std_distance),
    "wasserstein": StyleLoss(moment_sums, wasserstein_distance, prepare=with_root),
    "relaxed_emd": StyleLoss(
        lambda features, weights=None: {"points": some_positions(features)},
        lambda sums, target: relaxed_emd(sums["points"], target["points"]),
        additive=False,
    ),
}
