"""In half precision the layers that densities are computed from are float32, not only their type.

A layer in bfloat16 whose result is cast has no more than 128 different values from one power of two
to the next, where a density of 8-bit pixels needs more.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Var

from genjax.models.airbench import Airbench
from genjax.models.cnn import Cnn
from genjax.models.dit import DiT
from genjax.models.pixelcnn import GatedPixelCnn, PixelCnn
from genjax.models.pixelcnn_pp import PixelCnnPp
from genjax.models.pixelrnn import PixelRnn
from genjax.models.pixelsnail import PixelSnail
from genjax.models.resnet import ResNet
from genjax.models.unet import UNet
from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.models.vae_conv64 import Conv64Decoder, Conv64Encoder
from genjax.models.vae_mlp import MlpDecoder, MlpEncoder
from genjax.models.vae_resnet import ResNetDecoder, ResNetEncoder
from genjax.models.vdvae import VdVae
from genjax.models.vqvae import VqDecoder, VqEncoder

GREY, COLOUR = (8, 8, 1), (8, 8, 3)
IMAGE = jax.random.uniform(jax.random.key(0), (2, *GREY))
RGB = jax.random.uniform(jax.random.key(0), (2, *COLOUR))
LATENT = jax.random.normal(jax.random.key(0), (2, 4))

# name -> (dtype -> network), its inputs
NETWORKS = {
    "pixelcnn": (lambda d: PixelCnn(20, 8, 1, dtype=d), (IMAGE,)),
    "gated_pixelcnn": (lambda d: GatedPixelCnn(20, 8, (1,), dtype=d), (IMAGE,)),
    "pixelcnn_pp": (lambda d: PixelCnnPp(30, 8, 1, 1, dropout=0.0, dtype=d), (IMAGE,)),
    "pixelsnail": (lambda d: PixelSnail(20, 8, 1, 1, dtype=d), (IMAGE,)),
    "pixelrnn_row": (lambda d: PixelRnn(20, "row", 8, 1, dtype=d), (IMAGE,)),
    "pixelrnn_diagonal": (lambda d: PixelRnn(20, "diagonal", 8, 1, dtype=d), (IMAGE,)),
    "conv_encoder": (lambda d: ConvEncoder(4, (8,), dtype=d), (IMAGE,)),
    "conv_decoder": (lambda d: ConvDecoder(GREY, (8,), dtype=d), (LATENT,)),
    "mlp_encoder": (lambda d: MlpEncoder(4, (8,), dtype=d), (IMAGE,)),
    "mlp_decoder": (lambda d: MlpDecoder(GREY, (8,), dtype=d), (LATENT,)),
    "conv64_encoder": (lambda d: Conv64Encoder(4, (8,), dtype=d), (IMAGE,)),
    "conv64_decoder": (lambda d: Conv64Decoder(GREY, (8, 8), dtype=d), (LATENT,)),
    "resnet_encoder": (lambda d: ResNetEncoder(4, (8,), 1, dtype=d), (IMAGE,)),
    "resnet_decoder": (lambda d: ResNetDecoder(GREY, (8,), 1, dtype=d), (LATENT,)),
    "vq_encoder": (lambda d: VqEncoder(4, 8, 1, 1, dtype=d), (IMAGE,)),
    "vq_decoder": (lambda d: VqDecoder(1, 8, 1, 1, dtype=d), (RGB[:, :4, :4],)),
    "vdvae": (
        lambda d: VdVae(GREY, 10, (8,), (1, 1), (1, 1), 8, 4, 2, dtype=d),
        (jax.random.split(jax.random.key(1), 2), IMAGE),
    ),
    "cnn": (lambda d: Cnn(10, (8,), 1, dtype=d), (IMAGE,)),
    "resnet": (lambda d: ResNet(10, (1,), 8, dtype=d), (IMAGE,)),
    "airbench": (lambda d: Airbench(10, (24,), dtype=d), (RGB,)),
    "unet": (lambda d: UNet(8, (1,), dtype=d), (IMAGE, jnp.ones(2))),
    "dit": (lambda d: DiT(16, 1, 2, dtype=d), (IMAGE, jnp.ones(2))),
}


def densities(out):
    """What densities are computed from, of the outputs of a network."""
    if isinstance(out, dict):
        return [out["logits"]]
    if isinstance(out, tuple) and isinstance(out[1], list):  # of VdVae: z is another thing
        return [out[0], *(x for level in out[1] for x in (*level["q"], *level["p"]))]
    return jax.tree.leaves(out)


def products_before(jaxpr, outputs):
    """The matrix products and convolutions that outputs are computed from without another one."""
    made_by = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    found, left, seen = [], list(outputs), set()
    while left:
        variable = left.pop()
        eqn = made_by.get(variable) if isinstance(variable, Var) else None
        if eqn is None or id(eqn) in seen:
            continue
        seen.add(id(eqn))
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append(eqn)
        else:
            left += eqn.invars
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_is_computed_in_float32(name):
    make, inputs = NETWORKS[name]
    network = make("bfloat16")
    variables = jax.eval_shape(network.init, jax.random.key(3), *inputs)
    outputs = lambda variables: densities(network.apply(variables, *inputs))
    jaxpr = jax.make_jaxpr(outputs)(variables).jaxpr
    assert all(v.aval.dtype == jnp.float32 for v in jaxpr.outvars)
    last = products_before(jaxpr, jaxpr.outvars)
    assert last
    for eqn in last:
        assert {v.aval.dtype for v in (*eqn.invars, *eqn.outvars)} == {jnp.dtype("float32")}


def dtypes_of_layers(network, inputs):
    """The computation's dtype of each named layer of a network, on shapes."""
    found = {}

    def note(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(out, jax.Array):
            found["/".join(context.module.path)] = out.dtype
        return out

    def run():
        with nn.intercept_methods(note):
            network.init(jax.random.key(0), *inputs)

    jax.eval_shape(run)
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_all_other_layers_stay_in_half_precision(name):
    make, inputs = NETWORKS[name]
    layers = dtypes_of_layers(make("bfloat16"), inputs)
    assert sum(dtype == jnp.bfloat16 for dtype in layers.values()) >= 0.5 * len(layers) - 1
