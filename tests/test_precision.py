"""Coordinates, covariances and distances ask for the highest precision of matrix products.

On a CPU float32 is float32. A TPU multiplies float32 as bfloat16 by default, and a GPU with 10 bits
of mantissa: coordinates then move by pixels, and differences of nearly equal numbers are noise.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from genjax.metrics.nets import load_net
from genjax.models import vqvae
from genjax.models.airbench import whitening_kernel
from genjax.models.inception import resize_tf1, resize_torch
from genjax.objectives import ada, penalties, style
from genjax.objectives.priors import mixture_log_prob
from genjax.style.features import adain, whiten_and_color

IMAGES = jnp.linspace(0.0, 1.0, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
FEATURES = IMAGES[0]
ROWS = IMAGES.reshape(-1, 6)
KEYS = jax.random.split(jax.random.key(0), 2)
CODEBOOK = vqvae.init_codebook(jax.random.key(0), 5, 6)
KERNEL = {"kernel": IMAGES.reshape(2, 8, 8, 3)}


def of_style(name):
    loss = style.STYLE_LOSSES[name]
    return lambda x, y: loss.distance(loss.sums(x), loss.prepare(loss.sums(y)))


def features_of(name):
    """The features that a metric compares, by one of our networks."""
    net = load_net(name)
    shape = jax.ShapeDtypeStruct((2, *net.image_shape), jnp.uint8)
    return (
        lambda variables, images: net.forward(variables, images)["features"],
        net.variables,
        shape,
    )


FUNCTIONS = {
    "ada.augment": (lambda x: ada.augment(x, KEYS, 0.5), IMAGES),
    "ada.warp": (ada.warp, FEATURES, jnp.eye(3)),
    "spectral_normalize": (
        lambda p: penalties.spectral_normalize(p, {"kernel": jnp.ones(3)}),
        KERNEL,
    ),
    **{f"style.{name}": (of_style(name), FEATURES, FEATURES) for name in style.STYLE_LOSSES},
    "self_similarity": (style.self_similarity_distance, ROWS, ROWS),
    "whiten_and_color": (whiten_and_color, FEATURES, FEATURES),
    "adain": (adain, IMAGES, IMAGES),
    "whitening_kernel": (whitening_kernel, IMAGES),
    "nearest_codes": (vqvae.nearest_codes, ROWS, CODEBOOK["codes"]),
    "update_codebook": (
        lambda z: vqvae.update_codebook(CODEBOOK, z, jnp.zeros(64, int), 0.9, 1.0, KEYS[0]),
        ROWS,
    ),
    "mixture_log_prob": (
        lambda z: mixture_log_prob(z, jnp.ones((5, 6)), jnp.zeros((5, 6)), jnp.zeros(5)),
        ROWS,
    ),
    "resize_tf1": (resize_tf1, IMAGES),
    "resize_torch": (resize_torch, IMAGES),
    "net.cnn_mnist": features_of("cnn_mnist"),
    "net.cnn_cifar10": features_of("cnn_cifar10"),
}


def rounded_products(fn, *args):
    """The matrix products and convolutions of a program that do not ask for full precision."""
    text = jax.jit(fn).lower(*args).as_text()
    products = re.findall(r".*stablehlo\.(?:dot_general|dot|convolution)\b.*", text)
    full = r"HIGHEST.*HIGHEST"
    return [line.strip() for line in products if not re.search(full, line)], len(products)


def test_the_search_finds_a_product_that_rounds():
    a = jnp.ones((3, 3))
    assert len(rounded_products(lambda a: a @ a, a)[0]) == 1
    image = jnp.ones((1, 4, 4, 3))
    convolve = lambda x: jax.lax.conv(x, jnp.ones((2, 4, 2, 2)), (1, 1), "SAME")
    assert len(rounded_products(convolve, image)[0]) == 1
    exact = lambda a: jnp.matmul(a, a, precision="highest")
    assert rounded_products(exact, a) == ([], 1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_product_rounds(name):
    fn, *args = FUNCTIONS[name]
    wrong, _ = rounded_products(fn, *args)
    assert not wrong


@pytest.mark.parametrize("name", ["ada.augment", "whiten_and_color", "style.wasserstein"])
def test_no_product_of_the_gradient_rounds(name):
    """Where the gradient trains something; each function has products at all."""
    fn, first, *rest = FUNCTIONS[name]
    total = lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(fn(x, *rest)))
    wrong, count = rounded_products(jax.grad(total), first)
    assert not wrong and count
