"""Adaptive instance normalisation (Huang & Belongie 2017): any style in one pass.

  t = AdaIN(F(c), F(s))
  loss = |F(g(t)) - t|^2 + w sum_l (|mu_l - mu_l'|^2 + |sigma_l - sigma_l'|^2)

(equations 8 to 13), F a frozen VGG up to a layer, g the decoder that is trained, mu_l and sigma_l
those of the picture g(t), with a prime of the style. Contents come from `config.data`; styles from
`config.style_data`, or without one from the other pictures of the batch. With `config.decoder`
nothing is trained: `launch.py` draws the picture.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import stylize
from experiments.config import base_config, require
from experiments.evaluation import restored
from experiments.frozen_vgg import given, load_network, network_params
from experiments.run import Experiment, completed, say
from genjax import files, plots
from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.data.transforms import unit
from genjax.models.stylizers import Decoder
from genjax.models.vgg import VARIANTS, reach
from genjax.style.features import adain, mean_std, mixture
from genjax.train.parallel import in_main, main_first
from genjax.weights.vgg import load_decoder
from genjax.weights.write import write_safetensors

NUM_SHOWN = 6


def adain_config():
    """The fields of this family at their defaults."""
    config = base_config()
    config.experiment = "adain"
    stylize.add_fields(config)
    config.decoder = ""  # "": train one; or a file of a trained one
    config.style_data = ""  # folder:/path of style pictures; "": the batch's own
    config.num_styles = 256  # so many of them, kept in memory
    config.model = {"variant": "keras", "depth": 19, "pool": "max", "padding": "reflect"}
    config.model.layer = "relu4_1"
    config.objective = {"style_weight": 10.0}
    return config


def _layers(config):
    """relu1_1, ..., up to the layer of a config."""
    layer = config.model.layer
    known = tuple(f"relu{block}_1" for block in range(1, 6))
    require(layer in known, "model.layer", layer, f"one of {', '.join(known)}")
    return known[: known.index(layer) + 1]


def load(config):
    """(layers, encoder, its parameters or None, decoder, what to tell of the weights)."""
    layers = _layers(config)
    network, params, told = load_network(config, layers)
    widths = network.widths or VARIANTS[network.variant].widths
    decoder = Decoder(layers[-1], widths, jnp.dtype(config.compute_dtype))
    return layers, network, params, decoder, told


def build(config, image_shape, class_names, axis_name):
    """The decoder's training, as the shared trainer takes it."""
    del class_names, axis_name
    shares = stylize.check(config)
    layers, network, params_vgg, decoder, told = load(config)
    last = layers[-1]
    stride = reach([last])[0]
    fits = image_shape[2] == 3 and all(n % stride == 0 and n >= 2 * stride for n in image_shape[:2])
    what = f"(H, W, 3), H and W multiples of {stride} and at least {2 * stride}"
    require(fits, "data.image_shape", tuple(image_shape), what)
    weight = config.objective.style_weight
    require(0 <= weight < np.inf, "objective.style_weight", weight, "at least 0 and finite")
    require(config.num_styles >= 1, "num_styles", config.num_styles, "at least 1")
    enough = config.style_data or config.batch_size >= 2
    require(enough, "batch_size", config.batch_size, "at least 2 without config.style_data")
    frozen, styles = {"vgg": told}, None
    if config.style_data:
        styles, frozen["styles"] = _style_images(config, image_shape)

    def features(params, images):
        found = network.apply({"params": params}, images)
        return {name: x.astype(jnp.float32) for name, x in found.items()}

    def decode(params, target):
        return decoder.apply({"params": params}, target).astype(jnp.float32)

    def init(key):
        keys = jax.random.split(key)
        size = tuple(n // stride for n in image_shape[:2])
        shape = (1, *size, decoder.widths[len(layers) - 1])
        params = decoder.init(keys[0], jnp.zeros(shape))["params"]
        model_state = {"vgg": network_params(network, params_vgg, keys[1], image_shape)}
        if styles is not None:
            model_state["styles"] = given(styles)
        return params, model_state

    def styles_of(model_state, batch, rngs):
        if styles is None:
            return jnp.roll(batch["image"], 1, axis=0)
        draw = lambda key: jax.random.randint(key, (), 0, len(styles))
        return unit(model_state["styles"][jax.vmap(draw)(rngs("style"))])

    def losses(params, model_state, content, style):
        """[B] each."""
        style = features(model_state["vgg"], style)
        target = adain(features(model_state["vgg"], content)[last], style[last])
        found = features(model_state["vgg"], decode(params, target))
        apart = lambda x, y: jnp.mean((x - y) ** 2, axis=(1, 2, 3))
        moments = [(mean_std(found[n]), mean_std(style[n])) for n in layers]
        style_loss = sum(apart(m, n) + apart(s, t) for (m, s), (n, t) in moments)
        return {"content": apart(found[last], target), "style": style_loss}

    def loss_fn(params, model_state, batch, rngs, train):
        style = styles_of(model_state, batch, rngs)
        terms = losses(params, model_state, batch["image"], style)
        terms = {name: jnp.mean(term) for name, term in terms.items()}
        return terms["content"] + weight * terms["style"], (terms, model_state)

    def eval_fn(params, model_state, batch, rngs):
        style = styles_of(model_state, batch, rngs)
        terms = losses(params, model_state, batch["image"], style)
        return {**terms, "loss": terms["content"] + weight * terms["style"]}

    @jax.jit
    def show(params, model_state, content, style):
        content, style = (features(model_state["vgg"], x)[last] for x in (content, style))
        return decode(params, content), decode(params, adain(content, style))

    def figures(params, model_state, batch):
        """Contents, what the decoder makes of their own features, styles, and the result."""
        count = min(NUM_SHOWN, len(batch["image"]))
        content = batch["image"][:count]
        style = jnp.roll(content, 1, axis=0)
        if styles is not None:
            style = unit(jnp.resize(model_state["styles"], (count, *image_shape)))
        rows = [content, *show(params, model_state, content, style)]
        rows.insert(2, style)
        images = np.concatenate([plots.to_uint8(row) for row in rows])
        return {"stylized": plots.grid(images, count)}

    def export(params, model_state, folder):
        arrays = {}
        for name, layer in params.items():
            kernel = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
            arrays[name] = {"weight": kernel, "bias": np.asarray(layer["bias"])}
        path = Path(folder) / "decoder.safetensors"
        write_safetensors(path, arrays, {"encoder": told, "layer": last})
        say(f"the decoder is {path}, for --config.decoder")
        _draw(config, folder, shares, network, model_state["vgg"], decoder, params, told)

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        figures=figures,
        export=export,
        frozen=frozen,
    )


def _style_images(config, image_shape):
    """(uint8 [N, H, W, C], what they are)."""
    source = find_source(config.style_data, "all")
    data = main_first(lambda: load_dataset(source, image_shape, bad_images=config.data.bad_images))
    # Spread over the folder, in which neighbours may be alike.
    index = np.linspace(0, len(data) - 1, min(config.num_styles, len(data))).astype(int)
    return np.asarray(data.images[index]), f"{data.name} {data.fingerprint}"


def make_draw(config, shares, network, params_vgg, decoder, params, styles):
    """(images [B, H, W, 3]) -> the same in the mixture of `styles`, [H', W', 3] each."""

    @jax.jit
    def stylized(params_vgg, params, images, styles):
        features = lambda x: network.apply({"params": params_vgg}, x)[decoder.layer]
        found = features(images).astype(jnp.float32)
        each = [adain(found, features(s).astype(jnp.float32)) for s in styles]
        mixed = mixture(found, each, config.strength, shares)
        return decoder.apply({"params": params}, mixed).astype(jnp.float32)

    styles = [jnp.asarray(style)[None] for style in styles]
    return lambda images: stylized(params_vgg, params, images, styles)


def _draw(config, workdir, shares, network, params_vgg, decoder, params, told):
    content, styles = stylize.read_pictures(config, decoder.layer)
    draw = make_draw(config, shares, network, params_vgg, decoder, params, styles)
    stride = reach([decoder.layer])[0]
    return stylize.save_stylized(config, workdir, content, draw, stride, {"weights": told})


def train(config, workdir, source, train_one):
    """Trains a decoder, or with one given draws the picture."""
    if not config.decoder:
        return train_one(completed(config), workdir, source)
    shares = stylize.check(config)
    layers, network, params_vgg, decoder, told = load(config)
    require(params_vgg is not None, "weights", "random", "those that the decoder belongs to")
    loaded, sha256 = load_decoder(config.decoder)
    stylize.check_decoder(loaded, layers[-1], decoder.widths, config.decoder)
    params = stylize.as_decoder(loaded)
    report = {**source, "decoder_sha256": sha256}

    def save():
        drawn = _draw(config, workdir, shares, network, params_vgg, decoder, params, told)
        report.update(drawn)
        files.write_json(workdir / "report.json", report)

    in_main(save)
    return report


def sample(config, workdir, source, step):
    """Draws config.content in config.style with what was trained in a workdir."""
    if config.decoder:
        return train(config, workdir, source, None)
    shares = stylize.check(config)
    run, state, _ = restored(config, workdir, step, stylize.ALLOW)
    params, model_state = run.parallel.to_local((state.eval_params, state.model_state))
    _, network, _, decoder, told = load(config)
    in_main(
        lambda: _draw(config, workdir, shares, network, model_state["vgg"], decoder, params, told)
    )
