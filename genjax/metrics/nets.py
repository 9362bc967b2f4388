"""Feature networks, which compute what metrics compare of images.

There are three kinds: our classifiers that come with the package, identified by the SHA-256 of
their file; files written by training a classifier; and the Inception-v3 of the FID reference. The
name of a metric's value says which network it was computed with.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.transforms import PIXELS
from genjax.errors import UserError
from genjax.files import user_path, whole_file
from genjax.models.classifiers import CLASSIFIERS
from genjax.models.inception import InceptionV3
from genjax.typing import AnyArray, Array, Params, Shape
from genjax.weights.inception import load_inception
from genjax.weights.read import finite_float32, read_arrays

_FOLDER = Path(__file__).parent / "nets"
PINNED = tuple(sorted(path.stem for path in _FOLDER.glob("*.npz")))

# The pinned net of a dataset, used if a config names none.
OF_DATASET = {
    "digits": "cnn_digits",
    "mnist": "cnn_mnist",
    "stacked_mnist": "cnn_mnist",
    "cifar10": "cnn_cifar10",
}

_DESCRIPTION = "about"  # the array in a file that has its JSON, as bytes

# What a net computes: {"features": [B, d], "logits": [B, K] or, per channel, [B, C, K]}.
Outputs = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class FeatureNet:
    """A frozen network from images to features.

    Attributes:
      name: its name in metrics, with the start of its hash unless it is published.
      sha256: of the file that its weights were read from.
      published: whether it is the network, with the weights, that FID is defined by.
      resize: how it resizes images; "none": they must have `image_shape`.
      image_shape: (H, W, C), or None if it takes any [H, W, 3].
      num_classes: of its logits.
      variables: {"params": ..., ...}, float32 NumPy arrays.
      forward: (variables, uint8 images [B, H, W, C]) -> {"features": [B, d], "logits": [B, K]}.
    """

    name: str
    sha256: str
    published: bool
    resize: str
    image_shape: Shape | None
    num_classes: int
    variables: dict[str, Params]
    forward: Callable[[dict[str, Params], AnyArray], Outputs]

    def for_images(self, image_shape: Sequence[int], per_channel: bool = False) -> "FeatureNet":
        """Returns a net for images of a shape: this one, or one that takes each channel alone.

        Args:
          image_shape: (H, W, C).
          per_channel: whether a net for [H, W, 1] is applied to each channel, as for Stacked MNIST.
            The features of the channels are then concatenated, and the logits are [B, C, K].

        Raises:
          UserError: the net does not take such images.
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


def load_net(name: str, resize: str = "tf1") -> FeatureNet:
    """Loads a feature net.

    Args:
      name: one of `PINNED`; "inception", or "inception:/path" of its weights; or the path of a
        feature_net.npz.
      resize: how Inception resizes, "tf1" or "torch" (`genjax.models.inception.RESIZES`).

    Raises:
      UserError: there is no such net, or its weights cannot be downloaded or read.
    """
    if name == "inception" or name.startswith("inception:"):
        return _inception(name.partition(":")[2] or None, resize)
    if name in PINNED:
        return _read(_FOLDER / f"{name}.npz", name)
    path = user_path(name, "config.eval.net")
    if not path.is_file():
        raise UserError(
            f"there is no feature net '{name}': config.eval.net is one of {', '.join(PINNED)}, "
            "inception, or the path of a feature_net.npz that training a classifier wrote"
        )
    return _read(path, None)


def save_net(
    path: str | os.PathLike,
    variables: dict[str, Params],
    *,
    name: str,
    model: dict[str, Any],
    num_classes: int,
    pixels: str,
    image_shape: Sequence[int],
    provenance: dict[str, Any],
) -> None:
    """Writes one of our classifiers for `load_net`.

    Kernels are rounded to float16, which halves the file; the hash is that of the rounded net.

    Args:
      path: the file.
      variables: {"params": ..., ...} of a network in `CLASSIFIERS`.
      name: its name in metrics, such as "cnn_mnist".
      model: {"name": in CLASSIFIERS, size: value, ...}.
      num_classes: K.
      pixels: name in `PIXELS`, the transform of its inputs.
      image_shape: (H, W, C) of its inputs.
      provenance: recorded in the file.
    """
    description = {
        "name": name,
        "model": model,
        "num_classes": num_classes,
        "pixels": pixels,
        "image_shape": list(image_shape),
        "provenance": provenance,
    }
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    arrays = {
        key: np.asarray(value, np.float16 if np.ndim(value) > 1 else np.float32)
        for key, value in sorted(flat.items())
    }
    arrays[_DESCRIPTION] = np.frombuffer(json.dumps(description, sort_keys=True).encode(), np.uint8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def _read(path: Path, name: str | None) -> FeatureNet:
    arrays, sha256 = read_arrays(path)
    wrong = UserError(f"{path} is not a feature net that training a classifier wrote")
    try:
        description = json.loads(bytes(arrays.pop(_DESCRIPTION)))
        model, shape = dict(description["model"]), tuple(map(int, description["image_shape"]))
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
        network = CLASSIFIERS[sizes.pop("name")](
            int(description["num_classes"]), "float32", **sizes
        )
        pixels = PIXELS[description["pixels"]]
        own_name = str(description["name"])
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        expected = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise wrong from error
    expected = flax.traverse_util.flatten_dict(expected, sep="/")
    if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in arrays.items()}:
        raise wrong

    def forward(variables: dict[str, Params], images: AnyArray) -> Outputs:
        # Distances between features must not depend on how a device rounds by default.
        with jax.default_matmul_precision("highest"):
            return network.apply(variables, pixels(jnp.asarray(images), None))

    flat = {key: finite_float32(value, f"{path}: {key}") for key, value in arrays.items()}
    return FeatureNet(
        name=f"{name or own_name}_{sha256[:8]}",
        sha256=sha256,
        published=False,
        resize="none",
        image_shape=shape,
        num_classes=int(description["num_classes"]),
        variables=flax.traverse_util.unflatten_dict(flat, sep="/"),
        forward=forward,
    )


def _inception(path: str | None, resize: str) -> FeatureNet:
    variables, provenance = load_inception(path)
    network = InceptionV3(resize)

    def forward(variables: dict[str, Params], images: AnyArray) -> Outputs:
        rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
        taps = network.apply(variables, rgb)
        return {"features": taps["2048"], "logits": taps["logits_unbiased"]}

    # FID is defined with TensorFlow's resizing; the name mentions any other.
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


def _each_channel(
    forward: Callable[[dict[str, Params], AnyArray], Outputs],
    variables: dict[str, Params],
    images: AnyArray,
) -> Outputs:
    batch, height, width, channels = images.shape
    single = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height, width, 1)
    out = forward(variables, single)
    return {
        "features": out["features"].reshape(batch, -1),
        "logits": out["logits"].reshape(batch, channels, -1),
    }
