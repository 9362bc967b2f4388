"""Adaptive instance normalisation (Huang & Belongie 2017): any style in one pass.

  t = AdaIN(F(c), F(s))
  loss = |F(g(t)) - t|^2 + w sum_l (|mu_l - mu_l'|^2 + |sigma_l - sigma_l'|^2)

(equations 8 to 13), F a frozen VGG up to a layer, g the decoder that is trained, mu_l and sigma_l
those of the picture g(t), with a prime of the style. Contents are the images of `config.data`;
styles those of `config.style_data`, or without it the other images of the batch. With
`config.decoder` nothing is trained: `launch.py` draws the picture.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.style.frozen_vgg import FrozenVgg, check_pool, from_host, load_frozen_vgg
from experiments.style.stylize import (
    MAY_DIFFER,
    STYLIZE_FIELDS,
    Stylization,
    check_pixels,
    load_decoder_of,
)
from genjax import files, plots
from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.data.transforms import unit
from genjax.devices import previous_over_devices
from genjax.models.stylizers import Decoder
from genjax.models.vgg import reach
from genjax.runner.config import check_config, make_config
from genjax.runner.datasets import describe
from genjax.runner.family import Family
from genjax.runner.fields import field, is_set, merged, require
from genjax.runner.restore import restored_run
from genjax.runner.terminal import say
from genjax.style.features import adain, mean_std, mixture
from genjax.train.parallel import in_main, main_first
from genjax.typing import AnyArray, Array, Float, Params, Shape, UInt8
from genjax.weights.write import write_safetensors

NUM_SHOWN = 6

LAYERS = tuple(f"relu{block}_1" for block in range(1, 6))

FIELDS = merged(
    STYLIZE_FIELDS,
    {
        "decoder": field("", '"": train one; or a file of a trained one'),
        "style_data": field(
            "", 'folder:/path of style pictures; "": images of the batch', names="frozen"
        ),
        "num_styles": field(
            256, "style pictures kept in memory", at_least=1, only_with=is_set("style_data")
        ),
        "model": {
            "padding": dataclasses.replace(STYLIZE_FIELDS["model"]["padding"], default="reflect"),
            "layer": field("relu4_1", "that the decoder inverts", one_of=LAYERS),
        },
        "objective": {"style_weight": field(10.0, at_least=0)},
    },
)


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("adain", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    return {
        "weights": "random",
        "model.layer": "relu2_1",
        "data.image_shape": (16, 16, 3),
        "size": 32,
        "style_size": 32,
        "batch_size": 4,
    }


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...] = ()) -> "Adain":
    """Builds the training of a config's decoder."""
    stride = reach([config.model.layer])[0]
    fits = image_shape[2] == 3 and all(n % stride == 0 and n >= 2 * stride for n in image_shape[:2])
    what = f"(H, W, 3), H and W multiples of {stride} and at least {2 * stride}"
    require(fits, "data.image_shape", tuple(image_shape), what)
    check_pixels(config)
    enough = config.style_data or config.batch_size >= 2
    require(enough, "batch_size", config.batch_size, "at least 2 without config.style_data")
    family = make_family(config)
    if not config.style_data:
        return family
    styles, description = _style_images(config, image_shape)
    return dataclasses.replace(family, styles=styles, styles_description=description)


def make_family(config: ConfigDict) -> "Adain":
    """Returns encoder and decoder of a config, without the style pictures of training."""
    stylization = Stylization.of(config)
    encoder = load_frozen_vgg(config, LAYERS[: LAYERS.index(config.model.layer) + 1])
    check_pool(config, [config.model.layer])
    return Adain(
        encoder=encoder,
        decoder=Decoder(config.model.layer, encoder.widths, jnp.dtype(config.compute_dtype)),
        style_weight=config.objective.style_weight,
        stylization=stylization,
    )


def _style_images(
    config: ConfigDict, image_shape: Shape
) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    """Returns pictures of config.style_data, and their description."""
    source = find_source(config.style_data, "all")
    describe(source)
    data = main_first(lambda: load_dataset(source, image_shape, bad_images=config.data.bad_images))
    # Spread over the folder, in which neighbours may be alike.
    index = np.linspace(0, len(data) - 1, min(config.num_styles, len(data))).astype(int)
    return np.asarray(data.images[index]), f"{data.name} {data.fingerprint}"


@dataclasses.dataclass(frozen=True, eq=False)
class Adain(Family):
    """Encoder and decoder; the decoder's parameters are trained.

    Attributes:
      encoder: VGG to the decoder's layer; its layers are compared with the style.
      decoder: from features of `decoder.layer` to a picture.
      style_weight: of the style's term in the loss.
      styles: pictures that training draws styles from; None: the other images of the batch.
      styles_description: what they are, with their SHA-256.
      stylization: what `export` and `draw` draw.
    """

    encoder: FrozenVgg
    decoder: Decoder
    style_weight: float = 10.0
    styles: UInt8[AnyArray, "n h w 3"] | None = None
    styles_description: str = ""
    stylization: Stylization = Stylization()

    @property
    def frozen(self) -> dict[str, str]:
        frozen = {"vgg": self.encoder.description}
        return frozen if self.styles is None else {**frozen, "styles": self.styles_description}

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose means and deviations are compared; the last is the decoder's."""
        return self.encoder.network.layers

    # ---- Networks ----

    def init(self, key, images=None):
        keys = jax.random.split(key)
        features = jnp.zeros((1, 2, 2, self.decoder.widths[len(self.layers) - 1]))
        params = self.decoder.init(keys[0], features)["params"]
        model_state = {"vgg": self.encoder.init(keys[1])}
        if self.styles is not None:
            model_state["styles"] = from_host(self.styles)
        return params, model_state

    def encode(self, vgg: Params, images: Float[Array, "b _ _ 3"]) -> Float[Array, "b _ _ c"]:
        """Returns the features that the decoder takes."""
        return self.encoder.activations(vgg, images)[self.decoder.layer]

    def decode(self, params: Params, features: Float[Array, "b _ _ c"]) -> Float[Array, "b _ _ 3"]:
        """Returns the pictures of features, float32, about [0, 1]."""
        return self.decoder.apply({"params": params}, features).astype(jnp.float32)

    def stylize(
        self,
        vgg: Params,
        params: Params,
        images: Float[Array, "b _ _ 3"],
        styles: Sequence[Float[Array, "1 _ _ 3"]],
    ) -> Float[Array, "b _ _ 3"]:
        """Returns images in a mixture of styles, in the stylization's strength and shares."""
        content = self.encode(vgg, images)
        each = [adain(content, self.encode(vgg, style)) for style in styles]
        mixed = mixture(content, each, self.stylization.strength, self.stylization.shares)
        return self.decode(params, mixed)

    _stylize_jit = functools.cached_property(lambda self: jax.jit(self.stylize))

    # ---- Training and evaluation ----

    def losses(
        self,
        params: Params,
        vgg: Params,
        content: Float[Array, "b h w 3"],
        style: Float[Array, "b h w 3"],
    ) -> dict[str, Float[Array, " b"]]:
        """Returns the terms of the loss for each content with its style, without weights."""
        style = self.encoder.activations(vgg, style)
        target = adain(self.encode(vgg, content), style[self.decoder.layer])
        found = self.encoder.activations(vgg, self.decode(params, target))
        apart = lambda x, y: jnp.mean((x - y) ** 2, axis=(1, 2, 3))
        moments = [(mean_std(found[n]), mean_std(style[n])) for n in self.layers]
        style_loss = sum(apart(m, n) + apart(s, t) for (m, s), (n, t) in moments)
        return {"content": apart(found[self.decoder.layer], target), "style": style_loss}

    def styles_of(self, model_state, batch, rngs):
        """Returns a style for each image of a batch, [B, H, W, 3] in [0, 1]."""
        if self.styles is None:
            return previous_over_devices(batch["image"])
        choose = lambda key: jax.random.randint(key, (), 0, len(self.styles))
        return unit(model_state["styles"][jax.vmap(choose)(rngs("style"))])

    @property
    def whole_batch(self):
        return "styles from the same batch (no config.style_data)" if self.styles is None else ""

    def loss(self, params, model_state, batch, rngs, train=True):
        style = self.styles_of(model_state, batch, rngs)
        terms = self.losses(params, model_state["vgg"], batch["image"], style)
        terms = {name: jnp.mean(term) for name, term in terms.items()}
        return terms["content"] + self.style_weight * terms["style"], (terms, model_state)

    def evaluate(self, params, model_state, batch, rngs):
        style = self.styles_of(model_state, batch, rngs)
        terms = self.losses(params, model_state["vgg"], batch["image"], style)
        return {**terms, "loss": terms["content"] + self.style_weight * terms["style"]}

    # ---- Drawing ----

    def show(self, params, model_state, content, style):
        """Returns the pictures of the contents' own features, and of those in the styles."""
        content, style = (self.encode(model_state["vgg"], x) for x in (content, style))
        return self.decode(params, content), self.decode(params, adain(content, style))

    _show_jit = functools.cached_property(lambda self: jax.jit(self.show))

    def figures(self, params, model_state, batch):
        """Contents, the pictures of their own features, styles, and the results."""
        count = min(NUM_SHOWN, len(batch["image"]))
        content = batch["image"][:count]
        style = jnp.roll(content, 1, axis=0)
        if self.styles is not None:
            style = unit(jnp.resize(model_state["styles"], (count, *self.styles.shape[1:])))
        own, stylized = self._show_jit(params, model_state, content, style)
        rows = [plots.to_uint8(row) for row in (content, own, style, stylized)]
        return {"stylized": plots.grid(np.concatenate(rows), count)}

    def export(self, params, model_state, folder):
        arrays = {}
        for name, layer in params.items():
            kernel = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
            arrays[name] = {"weight": kernel, "bias": np.asarray(layer["bias"])}
        path = Path(folder) / "decoder.safetensors"
        described = {"encoder": self.encoder.description, "layer": self.decoder.layer}
        write_safetensors(path, arrays, described)
        say(f"decoder saved to {path}, for --config.decoder")
        self.draw(params, model_state["vgg"], folder)

    def draw(self, params: Params, vgg: Params, folder: str | Path) -> dict[str, Any]:
        """Draws and saves the picture of the stylization; returns its values for a report."""
        content, styles = self.stylization.read([self.decoder.layer])
        styles = [jnp.asarray(style)[None] for style in styles]
        stylize = lambda images: self._stylize_jit(vgg, params, images, styles)
        stride = reach([self.decoder.layer])[0]
        provenance = {"weights": self.encoder.description}
        return self.stylization.draw(folder, content, stylize, stride, provenance)


def train(
    config: ConfigDict,
    workdir: Path,
    source: dict[str, str],
    train_one: Callable[[ConfigDict, Path, dict[str, str]], dict[str, Any]] | None,
) -> dict[str, Any]:
    """Trains a decoder; with one given, draws the picture."""
    if not config.decoder:
        return train_one(config, workdir, source)
    check_config(config, FIELDS, num_devices=1)
    family = make_family(config)
    given = family.encoder.params is not None
    require(given, "weights", "random", "those that the decoder belongs to")
    params, sha256 = load_decoder_of(config.decoder, family.decoder)
    report = {**source, "decoder_sha256": sha256}

    def draw():
        report.update(family.draw(params, family.encoder.params, workdir))
        files.write_json(workdir / "report.json", report)

    in_main(draw)
    return report


def sample(config: ConfigDict, workdir: Path, source: dict[str, str], step: str) -> None:
    """Draws config.content in config.style with the decoder of a workdir or of a file."""
    if config.decoder:
        train(config, workdir, source, None)
        return
    run, state, _ = restored_run(config, workdir, step, MAY_DIFFER)
    params, model_state = run.parallel.to_local((state.eval_params, state.model_state))
    in_main(lambda: run.family.draw(params, model_state["vgg"], workdir))
