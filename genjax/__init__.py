"""genjax: the classic families of image generation behind one trainer, in JAX."""

__version__ = "0.2.0"
