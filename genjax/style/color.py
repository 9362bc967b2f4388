"""Keeping the colours of the content picture (Gatys et al. 2016, arXiv:1606.05897)."""

import numpy as np

# RGB -> YIQ, NTSC 1953.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def keep_color(image, content):
    """The luminance of one picture with the colours of another; both [H, W, 3] in [0, 1]."""
    yiq, colors = image @ _YIQ.T, content @ _YIQ.T
    yiq[..., 1:] = colors[..., 1:]
    return np.clip(yiq @ np.linalg.inv(_YIQ).T, 0, 1).astype(np.float32)


def match_color(image, reference):
    """A picture whose colours have the mean and covariance of those of another.

    The linear map of least change, C_r^(1/2) (C_r^(1/2) C C_r^(1/2))^(-1/2) C_r^(1/2), after which
    colours outside of [0, 1] are cut off.

    Args:
      image, reference: [H, W, 3] in [0, 1].
    """
    x, y = image.reshape(-1, 3).astype(np.float64), reference.reshape(-1, 3).astype(np.float64)
    cov = [np.cov(z.T, bias=True) + 1e-6 * np.eye(3) for z in (x, y)]
    root = _power(cov[1], 0.5)
    transport = root @ _power(root @ cov[0] @ root, -0.5) @ root
    out = (x - x.mean(0)) @ transport + y.mean(0)
    return np.clip(out, 0, 1).reshape(image.shape).astype(np.float32)


def _power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.T


# What is done to the style picture before, and to the result after: config.color.
COLORS = ("style", "luminance", "histogram")
