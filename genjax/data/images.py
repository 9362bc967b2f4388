"""One picture, whatever it was, made into one uint8 array of the shape a run asks for."""

import numpy as np
from PIL import Image, ImageOps

# Antialiased when shrinking, smooth when enlarging. Part of the cache key: change it and every
# cached array is made again.
RESIZE_FILTER = "bicubic"


def fit_image(image, image_shape):
    """Scales `image` until it covers `image_shape`, then crops the centre.

    Args:
      image: a PIL image, or a uint8 array [h, w, 1 or 3].
      image_shape: (height, width, channels), channels 1 (grey) or 3 (RGB).

    Returns:
      uint8 array [height, width, channels]. Transparent pixels are laid over white.
    """
    height, width, channels = image_shape
    if isinstance(image, np.ndarray):
        if image.shape == tuple(image_shape):
            return image
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(height, width, channels)
