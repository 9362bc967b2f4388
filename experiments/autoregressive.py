"""Autoregressive models (PixelRNN and PixelCNN and what came of them).

  log p(x) = sum over pixels (i, j) in raster order of  log p(x_ij | pixels before),

exact and in nats; the loss is -log p(x) for each of the H W C numbers. Pixels are integers: 0 and
1 where they are binarised, 0 to 255 otherwise, codes of a VQ model where the data are codes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from experiments.config import choose, require
from experiments.run import Experiment
from experiments.vqvae import load_decoder
from genjax import autoregressive, plots
from genjax.data.codes import num_codes, open_codes
from genjax.data.images import one_line
from genjax.errors import UserError
from genjax.metrics.likelihood import bits_per_dim_of_mass
from genjax.models.pixelcnn import GatedPixelCnn, PixelCnn
from genjax.models.pixelcnn_pp import PixelCnnPp
from genjax.models.pixelrnn import PixelRnn
from genjax.models.pixelsnail import PixelSnail
from genjax.objectives.pixel_heads import HEADS

NUM_SHOWN = 8  # images in a figure
NUM_COMPLETIONS = 5
NUM_STAGES = 8  # of an image that grows

# config.model.name -> network; config.model's other fields are the network's.
NETWORKS = {
    "pixelcnn": PixelCnn,
    "gated_pixelcnn": GatedPixelCnn,
    "pixelcnn_pp": PixelCnnPp,
    "pixelrnn": PixelRnn,
    "pixelsnail": PixelSnail,
}
# Networks whose channels may follow one another; the others see whole pixels.
ORDERED = ("pixelcnn", "gated_pixelcnn", "pixelrnn")
# Training images that data-dependent initialisation looks at.
NUM_INIT_EXAMPLES = 64


def build(config, image_shape, class_names, axis_name):
    """The model of a config, as the shared trainer takes it."""
    del axis_name  # no batch statistics
    height, width, channels = image_shape
    dims = height * width * channels
    head = _head(config, channels)
    num_classes = len(class_names) if config.model.class_conditional else 0
    network = _network(config, head, channels, num_classes, class_names)
    _check_sampling(config.sample)
    looks = config.model.name == "pixelcnn_pp"

    def values_of(images):
        scale = head.levels - 1 if jnp.issubdtype(images.dtype, jnp.floating) else 1
        return jnp.round(images * scale).astype(jnp.int32)

    def labels_of(batch):
        return batch["label"] if num_classes else None

    def init(key, first=None):
        if first is None:
            values = jnp.zeros((1, *image_shape), jnp.int32)
        else:  # uint8, or binarised at one half
            # Constants to the compiler, which would work the whole network out on them, slowly.
            first = jax.lax.optimization_barrier(first)
            values = first.astype(jnp.int32) * (head.levels - 1) // 255
        label = jnp.zeros(len(values), jnp.int32) if num_classes else None
        return network.init(key, head.encode(values), label)["params"], {}

    def nats_map(params, batch, train=False, dropout=None):
        """-log p(x_ij | pixels before), [B, H, W]."""
        values = values_of(batch["image"])
        rngs = {"dropout": dropout} if train else None
        x = head.encode(values)
        outputs = network.apply({"params": params}, x, labels_of(batch), train, rngs=rngs)
        return -head.log_prob(values, outputs)

    def loss_fn(params, model_state, batch, rngs, train):
        nats = jnp.mean(jnp.sum(nats_map(params, batch, train, rngs.layer("dropout")), (1, 2)))
        metrics = {"nll_nats": nats, "bpd": nats / (dims * np.log(2))}
        return nats / dims, (metrics, model_state)

    def eval_fn(params, model_state, batch, rngs):
        return {"nll_nats": jnp.sum(nats_map(params, batch), (1, 2))}

    def summarize(values):
        nats = np.mean(values["nll_nats"], dtype=np.float64)
        return {"nll_nats": nats, "bpd": bits_per_dim_of_mass(nats, dims)}

    def draw(params, keys, label, temperature, known=None, given=None):
        """Values 0 .. levels - 1, [B, H, W, C]."""
        return autoregressive.sample(
            network,
            {"params": params},
            head,
            keys,
            image_shape,
            label=label,
            temperature=temperature,
            known=known,
            given=given,
            levels=getattr(network, "resolutions", 1),
        )

    decode, sample_shape = _decoder(config, image_shape)

    def sample(params, model_state, keys, labels=None):
        values = draw(params, keys, labels, config.sample.temperature)
        return decode(values[..., 0]) if decode else values / (head.levels - 1)

    # Compiled when there is something to draw, and once.
    complete = jax.jit(functools.partial(draw, temperature=1.0))
    likelihood_map = jax.jit(nats_map)

    def figures(params, model_state, batch):
        shown = jax.tree.map(lambda x: x[:NUM_SHOWN], batch)
        values = values_of(shown["image"])
        count = len(values)
        images = np.asarray(values) / (head.levels - 1)

        upper = np.arange(height)[:, None] < height // 2
        given = np.broadcast_to(upper, (height, width))
        repeat = lambda x: jnp.repeat(x, NUM_COMPLETIONS, axis=0)
        keys = jax.random.split(jax.random.key(0), count * NUM_COMPLETIONS)
        label = repeat(shown["label"]) if num_classes else None
        ends = complete(params, keys, label, known=repeat(values), given=given)
        ends = np.asarray(ends) / (head.levels - 1)
        ends = ends.reshape(count, NUM_COMPLETIONS, *image_shape)
        half = np.where(given[..., None], images, 0.5)
        rows = np.concatenate([images[:, None], half[:, None], ends], 1)

        bits = np.asarray(likelihood_map(params, shown)) / (np.log(2) * channels)
        bits = bits[..., None] / max(bits.max(), 1e-6)
        pairs = np.concatenate([images, np.broadcast_to(bits, images.shape)])
        done = np.arange(height * width).reshape(height, width, 1)
        cuts = np.linspace(0, height * width, NUM_STAGES + 1)[1:]
        stages = np.stack([np.where(done < cut, ends[0, 0], 0.5) for cut in cuts])
        to_grid = lambda x, columns: plots.grid(plots.to_uint8(x), columns)
        return {
            "completions": to_grid(rows.reshape(-1, *image_shape), 2 + NUM_COMPLETIONS),
            "likelihood": to_grid(pairs, count),
            "progress": to_grid(stages, NUM_STAGES),
        }

    return Experiment(
        init=init,
        init_examples=NUM_INIT_EXAMPLES if looks else 0,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        sample=sample,
        sample_shape=sample_shape,
        sample_classes=num_classes > 0,
        figures=figures,
    )


def _decoder(config, image_shape):
    """(what makes images of codes, their shape), or Nones where the data's file does not know."""
    name = config.data.name
    if not name.startswith("codes:"):
        return None, None
    for key in ("num_samples", "num_samples_in_loop"):
        asked = config.eval[key]
        require(asked == 0, f"eval.{key}", asked, "0: codes are no images to compare with")
    codes = jax.ShapeDtypeStruct((1, *image_shape[:2]), jnp.int32)
    try:
        with open_codes(name) as file:
            decode = load_decoder(file)
        shape = jax.eval_shape(decode, codes).shape[1:] if decode else None
    except (KeyError, TypeError, ValueError, FlaxError) as error:
        raise UserError(f"{name}: its decoder is not one ({one_line(error)})") from error
    return decode, shape


def _head(config, channels):
    """The head of a config, for as many levels as its pixels have."""
    objective, pixels = config.objective, config.data.pixels
    make = choose(HEADS, objective.head, "objective.head")
    if config.data.name.startswith("codes:"):
        require(pixels == "integers", "data.pixels", pixels, "integers for codes")
        levels = num_codes(config.data.name)
    elif pixels.startswith("binarized"):
        levels = 2
    else:
        require(pixels == "unit", "data.pixels", pixels, "unit (256 levels), or binarized_*")
        levels = 256
    name = objective.head
    require(name != "bernoulli" or levels == 2, "objective.head", name, "bernoulli only for pixels"
            " of two levels: config.data.pixels=binarized_dynamic or binarized_static")  # fmt: skip
    codes = pixels == "integers"
    require(not codes or name == "softmax", "objective.head", name, "softmax for codes")
    components = objective.components
    require(components >= 1, "objective.components", components, "at least 1")
    return make(levels, channels, components, one_hot=codes)


def _network(config, head, channels, num_classes, class_names):
    model = config.model.to_dict()
    name = model.pop("name")
    make = choose(NETWORKS, name, "model.name")
    if model.pop("class_conditional") and len(class_names) < 2:
        raise UserError(f"config.data.name='{config.data.name}' has no classes to condition on")
    groups = channels if head.channelwise else 1
    if groups > 1 and name not in ORDERED:
        raise UserError(
            f"config.model.name={name} sees whole pixels: their {channels} colours need "
            f"config.objective.head=logistic_mixture, not {config.objective.head}"
        )
    known = [k for k in make.__dataclass_fields__ if k not in ("parent", "name")]
    fields = {"num_classes": num_classes, "dtype": config.compute_dtype}
    if name in ORDERED:
        fields["groups"] = groups
    for key, value in model.items():
        choose({k: k for k in known}, key, "model")
        sizes = value if isinstance(value, tuple) else (value,)
        if key == "dropout":
            require(0 <= value < 1, "model.dropout", value, "in [0, 1)")
        elif key == "kind":
            choose(("row", "diagonal"), value, "model.kind")
        elif not isinstance(value, bool):
            whole = all(type(n) is int and n >= 1 for n in sizes)
            require(whole and sizes, f"model.{key}", value, "whole numbers of at least 1")
    require(
        model["features"] % groups == 0,
        "model.features",
        model["features"],
        f"a multiple of the {groups} colours",
    )
    for key in ("first_kernel", "kernel"):
        size = model.get(key, 1)
        most = 2 * autoregressive.PAD - 1
        require(size % 2 and size <= most, f"model.{key}", size, f"odd and at most {most}")
    if name == "pixelsnail":
        for key in ("key_features", "value_features"):
            heads = model["heads"]
            require(model[key] % heads == 0, f"model.{key}", model[key], f"a multiple of {heads}")
    return make(head.num_outputs, **model, **fields)


def _check_sampling(sample):
    require(sample.temperature > 0, "sample.temperature", sample.temperature, "positive")
