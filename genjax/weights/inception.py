"""Published Inception-v3 weights for `genjax.models.inception.InceptionV3`.

Maps PyTorch's names to ours. A module has the same name in both; its arrays are

  PyTorch, [out, in, kh, kw] and [out, in]      ours, [kh, kw, in, out] and [in, out]
  NAME.conv.weight                              params/NAME/conv/kernel
  NAME.bn.weight, .bias                         params/NAME/bn/scale, /bias
  NAME.bn.running_mean, .running_var            batch_stats/NAME/bn/mean, /var
  fc.weight, .bias                              params/fc/kernel, /bias
"""

import dataclasses
import functools
import os

import flax.traverse_util
import jax
import numpy as np

from genjax.errors import UserError
from genjax.models.inception import SIZE, InceptionV3
from genjax.typing import Params
from genjax.weights.published import INCEPTION, find
from genjax.weights.read import read_arrays

_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_UNUSED = ".num_batches_tracked"  # counts of training steps, in some files


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of weights.

    Attributes:
      path: their file.
      sha256: of the file's bytes.
      published: whether they are those of the FID reference network.
    """

    path: str
    sha256: str
    published: bool


def load_inception(
    path: str | os.PathLike | None = None,
) -> tuple[dict[str, Params], Provenance]:
    """Reads the weights of the FID reference network.

    Args:
      path: a file with PyTorch's names (.pth, .safetensors or .npz); by default the published one,
        which is downloaded unless it exists.

    Returns:
      (variables for `InceptionV3.apply`, float32 NumPy arrays; their provenance).

    Raises:
      UserError: the file cannot be downloaded or read, or is of another network.
    """
    path = find(INCEPTION, path)
    arrays, sha256 = read_arrays(path)
    provenance = Provenance(str(path), sha256, sha256 == INCEPTION.file.sha256)
    return from_torch(arrays, path), provenance


def from_torch(arrays: dict[str, np.ndarray], path: str | os.PathLike) -> dict[str, Params]:
    """Converts {PyTorch name: array} to variables; all names and shapes must be right.

    Args:
      arrays: as `read_arrays` returns them.
      path: their file, for messages.

    Raises:
      UserError: an array is missing, unknown, not finite, or has another shape or type.
    """
    arrays = {name: array for name, array in arrays.items() if not name.endswith(_UNUSED)}
    wanted = torch_layout()
    where = f"the weights {path} are not of the FID Inception-v3: "
    for name, (_, shape) in wanted.items():
        if name not in arrays:
            raise UserError(f"{where}{name} is missing")
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise UserError(
                f"{where}{name} is {array.dtype} {array.shape} instead of float32 {shape}"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{where}{name} is not finite")
    for name in arrays:
        if name not in wanted:
            raise UserError(f"{where}they have {name!a:.80} too")
    flat = {
        ours: np.ascontiguousarray(arrays[name].transpose(_to_linen(arrays[name].ndim)))
        for name, (ours, _) in wanted.items()
    }
    return flax.traverse_util.unflatten_dict(flat)


@functools.cache
def torch_layout() -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Returns {PyTorch name: (path in our variables, PyTorch shape)} of all 472 arrays."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
    layout = {}
    for path, leaf in flax.traverse_util.flatten_dict(variables).items():
        collection, *module, kind = path
        name = ".".join([*module, _TORCH_NAMES[collection, kind]])
        axes = np.argsort(_to_linen(leaf.ndim))
        layout[name] = path, tuple(leaf.shape[axis] for axis in axes)
    return layout


def _to_linen(ndim: int) -> tuple[int, ...]:
    """Returns the axes of PyTorch's array in our order: OIHW -> HWIO, OI -> IO, O -> O."""
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[ndim]
