"""Preservation of the content picture's colours (Gatys et al. 2016, arXiv:1606.05897)."""

import numpy as np

from genjax.typing import Float

# RGB -> YIQ, NTSC 1953.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def keep_color(
    image: Float[np.ndarray, "h w 3"], content: Float[np.ndarray, "h w 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Combines the luminance of `image` with the colours of `content`; all in [0, 1]."""
    yiq, colors = image @ _YIQ.T, content @ _YIQ.T
    yiq[..., 1:] = colors[..., 1:]
    return np.clip(yiq @ np.linalg.inv(_YIQ).T, 0, 1).astype(np.float32)


def match_color(
    image: Float[np.ndarray, "h w 3"], reference: Float[np.ndarray, "h2 w2 3"]
) -> Float[np.ndarray, "h w 3"]:
    """Gives the colours of `image` the mean and covariance of those of `reference`.

    It applies the linear map that changes them least, C_r^(1/2) (C_r^(1/2) C C_r^(1/2))^(-1/2)
    C_r^(1/2), and clips the result. All values are in [0, 1].
    """
    x, y = image.reshape(-1, 3).astype(np.float64), reference.reshape(-1, 3).astype(np.float64)
    cov = [np.cov(z.T, bias=True) + 1e-6 * np.eye(3) for z in (x, y)]
    root = _power(cov[1], 0.5)
    transport = root @ _power(root @ cov[0] @ root, -0.5) @ root
    out = (x - x.mean(0)) @ transport + y.mean(0)
    return np.clip(out, 0, 1).reshape(image.shape).astype(np.float32)


def _power(matrix: Float[np.ndarray, "n n"], exponent: float) -> Float[np.ndarray, "n n"]:
    """Returns a power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.T


# config.color: the style's colours; the content's, by `keep_color` on the result; the content's, by
# `match_color` on the style picture.
COLORS = ("style", "luminance", "histogram")
