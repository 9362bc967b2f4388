"""Nats per image and bits per dimension.

There are two kinds of model, with a function for each instead of an option, because the wrong one
is off by log2(levels) and looks plausible:

  mass     P(x) of discrete pixels: PixelCNN, a discretised mixture, a bound of VDM's kind.
  density  p(x) of pixels with uniform noise of one level's width added: a flow, an ODE. By
           Jensen's inequality the mass of a level is at least the geometric mean of the density
           over its width, times the width to the power of dims (Theis et al. 2016, section 3.1);
           so the width matters.

A uniform model over 256 levels has 8 bits per dimension by either. Neither is meant for a density
of pixels without noise, which is unbounded.
"""

from typing import TypeAlias

import numpy as np

from genjax.errors import UserError
from genjax.typing import AnyArray, Float, Num

Nats: TypeAlias = float | int | np.number | Num[AnyArray, "*shape"]
Bits: TypeAlias = np.floating | Float[np.ndarray, "*shape"]


def bits_per_dim_of_mass(nats: Nats, dims: int) -> Bits:
    """Converts -log P(x) of discrete pixels from nats per image to bits per dimension.

    Args:
      nats: a number or an array.
      dims: H W C, the numbers in one image.
    """
    return np.asarray(nats, np.float64) / (_positive(dims) * np.log(2))


def nats_of_mass(bits_per_dim: Nats, dims: int) -> Bits:
    """Inverts `bits_per_dim_of_mass`."""
    return np.asarray(bits_per_dim, np.float64) * (_positive(dims) * np.log(2))


def bits_per_dim_of_density(
    nats: Nats, dims: int, *, levels: int, data_range: tuple[float | int, float | int]
) -> Bits:
    """Converts -log p(x) of dequantised pixels from nats per image to bits per dimension.

    Args:
      nats: a number or an array.
      dims: H W C, the numbers in one image.
      levels: how many values a pixel had before the uniform noise, 256 for 8 bits.
      data_range: (low, high), the range of the density's x with the noise in it: (0, 1) for
        x = (pixel + u) / levels, u in [0, 1); (-1, 1) for twice that minus 1; (0, levels) for
        pixel + u.
    """
    return bits_per_dim_of_mass(nats, dims) - _log2_width(levels, data_range)


def _positive(dims: int) -> int:
    if dims < 1:
        raise UserError(f"dims={dims}: an image has at least 1 number")
    return dims


def _log2_width(levels: int, data_range: tuple[float | int, float | int]) -> np.floating:
    """Computes log2 of the width of one level in the units of x."""
    low, high = data_range
    if levels < 2 or high <= low:
        raise UserError(f"levels={levels} over {data_range}: no width of a level")
    return np.log2((high - low) / levels)
