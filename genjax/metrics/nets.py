"""Feature networks: what sees the images that a metric compares.

Three kinds: classifiers of ours that come with the package, pinned by the SHA-256 of their file;
a file that training a classifier wrote; and the Inception-v3 of the FID reference. A number says in
its name which one it was made with.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.transforms import PIXELS
from genjax.errors import UserError
from genjax.files import whole_file
from genjax.models.classifiers import CLASSIFIERS
from genjax.models.inception import InceptionV3
from genjax.weights.inception import load_inception
from genjax.weights.read import read_arrays

_FOLDER = Path(__file__).parent / "nets"
PINNED = tuple(sorted(path.stem for path in _FOLDER.glob("*.npz")))

# The pinned net of a dataset, where a config names none.
OF_DATASET = {
    "digits": "cnn_digits",
    "mnist": "cnn_mnist",
    "stacked_mnist": "cnn_mnist",
    "cifar10": "cnn_cifar10",
}

_ABOUT = "about"  # of a file: its JSON, as bytes


@dataclasses.dataclass(frozen=True)
class FeatureNet:
    """A frozen network from images to features.

    Attributes:
      name: how numbers made with it call it, with the start of its hash unless it is published.
      sha256: of the file its weights were read from.
      published: whether it is the network, with the weights, that FID is defined by.
      resize: how images get to the size it takes; "none": they have to be of `image_shape`.
      image_shape: (H, W, C), or None where it takes any [H, W, 3].
      num_classes: of its logits; 0 where they mean nothing for the images.
      variables: {"params": ..., ...}, float32 NumPy arrays.
      forward: (variables, uint8 images [B, H, W, C]) -> {"features": [B, d], "logits": [B, K]}.
    """

    name: str
    sha256: str
    published: bool
    resize: str
    image_shape: tuple[int, int, int] | None
    num_classes: int
    variables: dict
    forward: Callable

    def for_images(self, image_shape, per_channel=False):
        """This net, if it takes such images; with `per_channel`, one that sees each channel alone.

        Features of the channels are concatenated; logits are [B, C, K]. Stacked MNIST is so judged.

        Raises:
          UserError: it does not take them.
        """
        shape = tuple(image_shape)
        if self.image_shape is None:
            return self
        if per_channel and self.image_shape == (*shape[:2], 1):
            return dataclasses.replace(
                self,
                name=f"{self.name}_per_channel",
                image_shape=shape,
                forward=functools.partial(_each_channel, self.forward),
            )
        if shape != self.image_shape:
            raise UserError(
                f"the feature net {self.name} takes images {self.image_shape}, not {shape}; choose "
                f"config.eval.net among {', '.join(PINNED)}, inception, or a file"
            )
        return self


def load_net(name, resize="tf1"):
    """The feature net called `name`.

    Args:
      name: one of `PINNED`; "inception", or "inception:/path" of its weights; or the path of a
        feature_net.npz.
      resize: how Inception resizes, "tf1" or "torch" (`genjax.models.inception.RESIZES`).

    Raises:
      UserError: there is no such net, or its weights cannot be had or read.
    """
    if name == "inception" or name.startswith("inception:"):
        return _inception(name.partition(":")[2] or None, resize)
    if name in PINNED:
        return _read(_FOLDER / f"{name}.npz", name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"there is no feature net '{name}': config.eval.net is one of {', '.join(PINNED)}, "
            "inception, or the path of a feature_net.npz that training a classifier wrote"
        )
    return _read(path, None)


def save_net(path, variables, *, name, model, num_classes, pixels, image_shape, told):
    """Writes a classifier of ours so that `load_net` can read it.

    Kernels are rounded to float16, for half the file; it is the rounded net that the hash names.

    Args:
      path: where to.
      variables: {"params": ..., ...} of a network in `CLASSIFIERS`.
      name: what the numbers will call it, such as "cnn_mnist".
      model: {"name": in CLASSIFIERS, size: value, ...}.
      num_classes: K.
      pixels: name in `PIXELS`, how it takes its images.
      image_shape: (H, W, C) of them.
      told: dict, where it comes from; kept in the file.
    """
    about = {
        "name": name,
        "model": model,
        "num_classes": num_classes,
        "pixels": pixels,
        "image_shape": list(image_shape),
        "told": told,
    }
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    arrays = {
        key: np.asarray(value, np.float16 if np.ndim(value) > 1 else np.float32)
        for key, value in sorted(flat.items())
    }
    arrays[_ABOUT] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def _read(path, name):
    arrays, sha256 = read_arrays(path)
    wrong = UserError(f"{path} is not a feature net that training a classifier wrote")
    try:
        about = json.loads(bytes(arrays.pop(_ABOUT)))
        model, shape = dict(about["model"]), tuple(map(int, about["image_shape"]))
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
        network = CLASSIFIERS[sizes.pop("name")](
            int(about["num_classes"]), "float32", None, **sizes
        )
        pixels = PIXELS[about["pixels"]]
        given = str(about["name"])
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        expected = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise wrong from error
    expected = flax.traverse_util.flatten_dict(expected, sep="/")
    if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in arrays.items()}:
        raise wrong

    def forward(variables, images):
        return network.apply(variables, pixels(images, None))

    flat = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
    return FeatureNet(
        name=f"{name or given}_{sha256[:8]}",
        sha256=sha256,
        published=False,
        resize="none",
        image_shape=shape,
        num_classes=int(about["num_classes"]),
        variables=flax.traverse_util.unflatten_dict(flat, sep="/"),
        forward=forward,
    )


def _inception(path, resize):
    variables, provenance = load_inception(path)
    network = InceptionV3(resize)

    def forward(variables, images):
        rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
        taps = network.apply(variables, rgb)
        return {"features": taps["2048"], "logits": taps["logits_unbiased"]}

    # FID is defined with TensorFlow's resizing: another one is in the name.
    name = "inception" if resize == "tf1" else f"inception_{resize}"
    return FeatureNet(
        name=name if provenance.published else f"{name}_{provenance.sha256[:8]}",
        sha256=provenance.sha256,
        published=provenance.published,
        resize=resize,
        image_shape=None,
        num_classes=1008,
        variables=variables,
        forward=forward,
    )


def _each_channel(forward, variables, images):
    batch, height, width, channels = images.shape
    apart = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height, width, 1)
    out = forward(variables, apart)
    return {
        "features": out["features"].reshape(batch, -1),
        "logits": out["logits"].reshape(batch, channels, -1),
    }
