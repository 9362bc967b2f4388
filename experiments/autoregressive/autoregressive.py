"""Autoregressive models (PixelRNN and PixelCNN, van den Oord et al. 2016, and their successors).

  log p(x) = sum over pixels (i, j) in raster order of  log p(x_ij | pixels before),

exact and in nats; the loss is -log p(x) divided by H W C. Pixels are integers: 0 and 1 where they
are binarised, 0 to 255 otherwise, codes of a VQ model where the data are codes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from ml_collections import ConfigDict

from experiments.vae.codes import load_decoder
from genjax import autoregressive, plots
from genjax.data.codes import PREFIX, num_codes, read_codes
from genjax.errors import UserError, one_line
from genjax.metrics.likelihood import bits_per_dim_of_mass
from genjax.models.pixelcnn import GatedPixelCnn, PixelCnn
from genjax.models.pixelcnn_pp import PixelCnnPp
from genjax.models.pixelrnn import PixelRnn
from genjax.models.pixelsnail import PixelSnail
from genjax.objectives.pixel_heads import HEADS, Head
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Family
from genjax.runner.fields import Choice, field, one_of, require
from genjax.typing import AnyArray, Array, Bool, Float, Int, Key, Num, Params, Shape

NUM_SHOWN = 8  # images in a figure
NUM_COMPLETIONS = 5
NUM_STAGES = 8  # of an image that grows

# Training images that data-dependent initialisation looks at.
NUM_INIT_EXAMPLES = 64

CLASS_CONDITIONAL = field(False, "give the network the class")
DROPOUT = field(0.0, "probability", at_least=0, below=1)
REMAT = field(False, "compute blocks again for gradients, to save memory")

# config.model: the fields of each network of `genjax.models`.
NETWORKS = Choice(
    {
        "pixelcnn": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(64, "channels", at_least=1),
            "num_layers": field(7, "after the first one", at_least=1),
            "first_kernel": field(7, "side, odd", at_least=1),
            "kernel": field(3, "side, odd", at_least=1),
            "residual": field(False, "whether a layer adds to its input"),
        },
        "gated_pixelcnn": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(64, "channels of both stacks", at_least=1),
            "dilations": field((1,) * 7, "of one layer each", at_least=1, nonempty=True),
            "first_kernel": field(7, "side, odd", at_least=1),
            "kernel": field(3, "side, odd", at_least=1),
            "dropout": DROPOUT,
        },
        "pixelcnn_pp": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(160, "channels", at_least=1),
            "blocks": field(5, "of each resolution on the way down", at_least=1),
            "resolutions": field(3, "each half of the one before", at_least=1),
            "dropout": dataclasses.replace(DROPOUT, default=0.5),
            "remat": REMAT,
        },
        "pixelrnn": {
            "class_conditional": CLASS_CONDITIONAL,
            "kind": field("diagonal", "of LSTM", one_of=("row", "diagonal")),
            "features": field(32, "units of an LSTM", at_least=1),
            "num_layers": field(7, "of LSTMs", at_least=1),
        },
        "pixelsnail": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(64, "channels", at_least=1),
            "blocks": field(4, "of some layers and one attention", at_least=1),
            "layers": field(2, "residual convolutions of a block", at_least=1),
            "heads": field(1, "of the attention", at_least=1),
            "key_features": field(16, "of all heads together", at_least=1),
            "value_features": field(32, "of all heads together", at_least=1),
            "dropout": DROPOUT,
            "remat": REMAT,
        },
    }
)

_NETWORK_CLASSES = {
    "pixelcnn": PixelCnn,
    "gated_pixelcnn": GatedPixelCnn,
    "pixelcnn_pp": PixelCnnPp,
    "pixelrnn": PixelRnn,
    "pixelsnail": PixelSnail,
}

# Networks whose channels may be generated one after another; the others generate whole pixels.
_CHANNELWISE = ("pixelcnn", "gated_pixelcnn", "pixelrnn")

FIELDS = {
    "model": NETWORKS,
    "objective": {
        "head": field("softmax", "p(one pixel | pixels before)", one_of=HEADS),
        "components": field(
            10,
            "of logistic_mixture",
            at_least=1,
            only_with=one_of("objective.head", "logistic_mixture"),
        ),
    },
    "sample": {"temperature": field(1.0, "divides the logits", above=0)},
}

_SMOKE = {
    "pixelcnn": {"features": 6, "num_layers": 1},
    "gated_pixelcnn": {"features": 6, "dilations": (1, 2)},
    "pixelcnn_pp": {"features": 4, "blocks": 1, "resolutions": 2},
    "pixelrnn": {"features": 4, "num_layers": 1},
    "pixelsnail": {
        "features": 4,
        "blocks": 1,
        "layers": 1,
        "heads": 1,
        "key_features": 2,
        "value_features": 4,
    },
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("autoregressive", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    pixels = config.data.pixels
    return {
        "compute_dtype": "float32",
        "optim.warmup_steps": 0,
        "data.pixels": "unit" if pixels == "integers" else pixels,  # the smoke data are images
        "objective.components": 2,
        **{f"model.{key}": value for key, value in _SMOKE[config.model.name].items()},
    }


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "Autoregressive":
    """Builds the autoregressive model of a config."""
    head = _find_head(config, image_shape[2])
    _check(config, head, class_names)
    fields = config.model.to_dict()
    name, class_conditional = fields.pop("name"), fields.pop("class_conditional")
    num_classes = len(class_names) if class_conditional else 0
    if name in _CHANNELWISE:
        fields["groups"] = _num_groups(head)
    return Autoregressive(
        network=_NETWORK_CLASSES[name](
            head.num_outputs, num_classes=num_classes, dtype=config.compute_dtype, **fields
        ),
        head=head,
        image_shape=tuple(image_shape),
        num_classes=num_classes,
        temperature=config.sample.temperature,
        decode=_find_decoder(config, image_shape),
    )


def _num_groups(head: Head) -> int:
    """Returns how many groups the channels of a network form: one for each colour, or 1."""
    return head.channels if head.channelwise else 1


def _find_head(config: ConfigDict, channels: int) -> Head:
    """Returns the head of a config, with the number of levels of its pixels."""
    name, pixels = config.objective.head, config.data.pixels
    if config.data.name.startswith(PREFIX):
        require(pixels == "integers", "data.pixels", pixels, "integers for codes")
        levels = num_codes(config.data.name)
    elif pixels.startswith("binarized"):
        levels = 2
    else:
        require(pixels == "unit", "data.pixels", pixels, "unit (256 levels), or binarized_*")
        levels = 256
    what = "bernoulli only for pixels of two levels: config.data.pixels=binarized_dynamic or "
    what += "binarized_static"
    require(name != "bernoulli" or levels == 2, "objective.head", name, what)
    codes = pixels == "integers"
    require(not codes or name == "softmax", "objective.head", name, "softmax for codes")
    return HEADS[name](levels, channels, config.objective.components, one_hot=codes)


def _check(config: ConfigDict, head: Head, class_names: tuple[str, ...]) -> None:
    """Raises a UserError for fields that do not go together."""
    model, groups = config.model, _num_groups(head)
    require(
        not model.class_conditional or len(class_names) > 1,
        "model.class_conditional",
        True,
        f"False: config.data.name='{config.data.name}' has no classes",
    )
    if groups > 1 and model.name not in _CHANNELWISE:
        raise UserError(
            f"config.model.name={model.name} sees whole pixels: their {groups} colours need "
            f"config.objective.head=logistic_mixture, not {config.objective.head}"
        )
    what = f"a multiple of the {groups} colours"
    require(model.features % groups == 0, "model.features", model.features, what)
    most = 2 * autoregressive.PAD - 1
    for key in ("first_kernel", "kernel"):
        size = model.get(key, 1)
        require(size % 2 and size <= most, f"model.{key}", size, f"odd and at most {most}")
    if model.name == "gated_pixelcnn" and model.kernel == 1:
        what = "1s with model.kernel=1, which has nothing to spread"
        require(set(model.dilations) == {1}, "model.dilations", model.dilations, what)
    if model.name == "pixelsnail":
        for key in ("key_features", "value_features"):
            fits = model[key] % model.heads == 0
            require(fits, f"model.{key}", model[key], f"a multiple of {model.heads}")


def _find_decoder(config: ConfigDict, image_shape: Shape) -> Callable | None:
    """Returns what turns codes into images, None where the data are no codes or have no decoder.

    Raises:
      UserError: the decoder in the file is broken, or images are to be compared with codes.
    """
    name = config.data.name
    if not name.startswith(PREFIX):
        return None
    for key in ("num_samples", "num_samples_in_loop"):
        count = config.eval[key]
        require(count == 0, f"eval.{key}", count, "0: codes are no images to compare with")
    try:
        decode = load_decoder(read_codes(name))
        if decode:
            _decoded_shape(decode, image_shape)
    except (KeyError, TypeError, ValueError, FlaxError) as error:
        raise UserError(f"{name}: its decoder is not one ({one_line(error)})") from error
    return decode


def _decoded_shape(decode: Callable, image_shape: Shape) -> Shape:
    """Returns the shape of the image of an array of codes."""
    codes = jax.ShapeDtypeStruct((1, *image_shape[:2]), jnp.int32)
    return jax.eval_shape(decode, codes).shape[1:]


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregressive(Family):
    """An autoregressive model of images of integers.

    Attributes:
      network: of `genjax.models.causal` layers, whose outputs at a pixel depend on what is before.
      head: p(one pixel | outputs); decides how many levels a pixel has.
      image_shape: (H, W, C).
      num_classes: classes that the network gets; 0 for none.
      temperature: divides the logits, when sampling.
      decode: codes [B, H, W] -> images, where the data are codes; else None.
    """

    network: nn.Module
    head: Head
    image_shape: Shape
    num_classes: int = 0
    temperature: float = 1.0
    decode: Callable | None = None

    @property
    def num_init_examples(self) -> int:
        return NUM_INIT_EXAMPLES if isinstance(self.network, PixelCnnPp) else 0

    @property
    def sample_takes_labels(self) -> bool:
        return self.num_classes > 0

    @property
    def sample_shape(self) -> Shape | None:
        return _decoded_shape(self.decode, self.image_shape) if self.decode else None

    @property
    def num_dims(self) -> int:
        """Numbers in an image."""
        height, width, channels = self.image_shape
        return height * width * channels

    def init(self, key, images=None):
        if images is None:
            values = jnp.zeros((1, *self.image_shape), jnp.int32)
        else:  # uint8, or binarised at one half
            # As constants the compiler would evaluate the whole network on them, slowly.
            images = jax.lax.optimization_barrier(images)
            values = images.astype(jnp.int32) * (self.head.levels - 1) // 255
        label = jnp.zeros(len(values), jnp.int32) if self.num_classes else None
        return self.network.init(key, self.head.encode(values), label)["params"], {}

    # ---- Likelihood ----

    def values_of(self, images: Num[AnyArray, "b h w c"]) -> Int[Array, "b h w c"]:
        """Returns int32 values 0 .. levels - 1 of images in [0, 1], or of codes."""
        scale = self.head.levels - 1 if jnp.issubdtype(images.dtype, jnp.floating) else 1
        return jnp.round(images * scale).astype(jnp.int32)

    def nats_map(
        self, params: Params, batch: Batch, train: bool = False, dropout: Array | None = None
    ) -> Float[Array, "b h w"]:
        """Computes -log p(x_ij | pixels before) in nats.

        Args:
          params: of the network.
          batch: images and their classes.
          train: whether there is dropout.
          dropout: its key, where `train`.
        """
        values = self.values_of(batch["image"])
        label = batch["label"] if self.num_classes else None
        rngs = {"dropout": dropout} if train else None
        x = self.head.encode(values)
        outputs = self.network.apply({"params": params}, x, label, train, rngs=rngs)
        return -self.head.log_prob(values, outputs)

    def loss(self, params, model_state, batch, rngs, train=True):
        by_pixel = self.nats_map(params, batch, train, rngs.layer("dropout"))
        nats = jnp.mean(jnp.sum(by_pixel, (1, 2)))
        metrics = {"nll_nats": nats, "bpd": nats / (self.num_dims * np.log(2))}
        return nats / self.num_dims, (metrics, model_state)

    def evaluate(self, params, model_state, batch, rngs):
        return {"nll_nats": jnp.sum(self.nats_map(params, batch), (1, 2))}

    def summarize(self, values):
        nats = np.mean(values["nll_nats"], dtype=np.float64)
        return {"nll_nats": nats, "bpd": bits_per_dim_of_mass(nats, self.num_dims)}

    # ---- Sampling ----

    def draw(
        self,
        params: Params,
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None,
        temperature: float,
        known: Int[Array, "b h w c"] | None = None,
        given: Bool[Array, "h w"] | None = None,
    ) -> Int[Array, "b h w c"]:
        """Draws values 0 .. levels - 1, row i by keys[i].

        Args:
          params: of the network.
          keys: of the images.
          label: their classes, where the network gets them.
          temperature: divides the logits.
          known: values to keep where `given` is true.
          given: which pixels are known; None: none.
        """
        return autoregressive.sample(
            self.network,
            {"params": params},
            self.head,
            keys,
            self.image_shape,
            label=label,
            temperature=temperature,
            known=known,
            given=given,
            levels=getattr(self.network, "resolutions", 1),
        )

    def sample(self, params, model_state, keys, labels=None):
        values = self.draw(params, keys, labels, self.temperature)
        if self.decode is None:
            return self._in_unit(values)
        drawn = (values >= 0).all(axis=(1, 2, 3), keepdims=True)
        return jnp.where(drawn, self.decode(values[..., 0]), jnp.nan)

    def _in_unit(self, values):
        """Maps values to [0, 1], and those that could not be drawn, -1, to NaN."""
        return jnp.where(values < 0, jnp.nan, values / (self.head.levels - 1))

    # ---- Figures ----

    _complete_jit = functools.cached_property(
        lambda self: jax.jit(functools.partial(self.draw, temperature=1.0))
    )
    _nats_map_jit = functools.cached_property(lambda self: jax.jit(self.nats_map))

    def figures(self, params, model_state, batch):
        shown = jax.tree.map(lambda x: x[:NUM_SHOWN], batch)
        values = self.values_of(shown["image"])
        images = np.asarray(values) / (self.head.levels - 1)
        height, width, channels = self.image_shape
        upper = np.broadcast_to(np.arange(height)[:, None] < height // 2, (height, width))
        ends = self._completions(params, values, shown["label"], upper)

        half = np.where(upper[..., None], images, 0.5)
        rows = np.concatenate([images[:, None], half[:, None], ends], 1)
        bits = np.asarray(self._nats_map_jit(params, shown)) / (np.log(2) * channels)
        bits = bits[..., None] / max(bits.max(), 1e-6)
        pairs = np.concatenate([images, np.broadcast_to(bits, images.shape)])
        to_grid = lambda x, columns: plots.grid(plots.to_uint8(x), columns)
        return {
            "completions": to_grid(rows.reshape(-1, *self.image_shape), 2 + NUM_COMPLETIONS),
            "likelihood": to_grid(pairs, len(images)),
            "progress": to_grid(_growing(ends[0, 0]), NUM_STAGES),
        }

    def _completions(self, params, values, label, given):
        """Returns completions [B, NUM_COMPLETIONS, H, W, C] of the pixels `given`, in [0, 1]."""
        repeat = lambda x: jnp.repeat(x, NUM_COMPLETIONS, axis=0)
        keys = jax.random.split(jax.random.key(0), len(values) * NUM_COMPLETIONS)
        label = repeat(label) if self.num_classes else None
        ends = self._complete_jit(params, keys, label, known=repeat(values), given=given)
        ends = np.asarray(self._in_unit(ends))
        return ends.reshape(len(values), NUM_COMPLETIONS, *self.image_shape)


def _growing(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "n h w c"]:
    """Returns stages of an image in raster order, grey where it is not drawn yet."""
    height, width, _ = image.shape
    order = np.arange(height * width).reshape(height, width, 1)
    cuts = np.linspace(0, height * width, NUM_STAGES + 1)[1:]
    return np.stack([np.where(order < cut, image, 0.5) for cut in cuts])
