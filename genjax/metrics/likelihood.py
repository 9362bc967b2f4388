"""From nats an image to bits a dimension, by what was modelled."""

import math


def bits_per_dim_of_pixels(nats, dims):
    """For a model of discrete pixels, -log P(x): a probability, whatever its values stand for.

    Args:
      nats: -log P of a whole image.
      dims: height x width x channels.
    """
    return nats / (dims * math.log(2))


def bits_per_dim_of_density(nats, dims, bin_width=1 / 256):
    """For a density of uniformly dequantised pixels, -log p(x + u) (Theis et al. 2016, eq. 3-5).

    A bound on the bits of the discrete pixels: each is an interval of width `bin_width`, so that
    -log P <= -log p - dims log(bin_width). For (x + u) / 256 in [0, 1) that is 1/256; for images
    scaled to [-1, 1), 2/256.
    """
    return nats / (dims * math.log(2)) - math.log2(bin_width)
