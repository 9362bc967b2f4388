import jax
import jax.numpy as jnp
import numpy as np

from genjax.models.airbench import Airbench, identity_first, normalize, whitening_kernel


def test_whitened_patches_are_uncorrelated_with_variance_one():
    key = jax.random.key(0)
    # Neighbours that resemble each other, channels too, as in photographs.
    small = jax.random.normal(key, (64, 8, 8, 1)) + 0.3 * jax.random.normal(key, (64, 8, 8, 3))
    images = jax.image.resize(small, (64, 16, 16, 3), "linear")
    kernel = whitening_kernel(images)
    assert kernel.shape == (2, 2, 3, 24)
    out = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(-1, 24)
    np.testing.assert_allclose(out[:, :12], -out[:, 12:], rtol=1e-4, atol=1e-4)
    second = out[:, :12].T @ out[:, :12] / len(out)
    off = second - jnp.diag(jnp.diag(second))
    assert float(jnp.abs(off).max()) < 1e-2
    assert float(jnp.diag(second).max()) < 1.01 and float(second[0, 0]) > 0.99


def test_kernels_begin_as_the_identity():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    kernel = identity_first(jax.random.key(1), (3, 3, 3, 8))
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(out[..., :3], x, rtol=1e-6)
    bound = 1 / np.sqrt(27)  # PyTorch's default
    rest = np.asarray(kernel[..., 3:])
    assert np.abs(rest).max() <= bound and np.abs(rest).std() > 0.2 * bound


def test_the_whitening_comes_from_the_images_and_is_no_parameter():
    images = jax.random.uniform(jax.random.key(0), (40, 32, 32, 3))
    network = Airbench(10)
    shapes = jax.eval_shape(
        lambda key: network.init(key, images[:1], init_images=images), jax.random.key(0)
    )
    groups = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 2 * (64 + 256 + 256)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 24 + groups + 256 * 10
    small = Airbench(10, (24, 24, 24))
    variables = small.init(jax.random.key(0), images[:1], init_images=images)
    np.testing.assert_array_equal(
        variables["whitening"]["kernel"], whitening_kernel(normalize(images))
    )
    out = small.apply(variables, images[:4])
    assert out["logits"].shape == (4, 10) and out["features"].shape == (4, 24)
