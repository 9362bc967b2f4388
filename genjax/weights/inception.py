"""Published Inception-v3 weights, as `genjax.models.inception.InceptionV3` wants them.

The one place that knows both names. A module has the same name on both sides; of its arrays,

  PyTorch, [out, in, kh, kw] and [out, in]      ours, [kh, kw, in, out] and [in, out]
  NAME.conv.weight                              params/NAME/conv/kernel
  NAME.bn.weight, .bias                         params/NAME/bn/scale, /bias
  NAME.bn.running_mean, .running_var            batch_stats/NAME/bn/mean, /var
  fc.weight, .bias                              params/fc/kernel, /bias
"""

import dataclasses

import flax.traverse_util
import jax
import numpy as np

from genjax.errors import UserError
from genjax.models.inception import SIZE, InceptionV3
from genjax.weights.published import INCEPTION, find
from genjax.weights.read import read_arrays

_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_UNUSED = ".num_batches_tracked"  # counts of training steps, which some files have


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Which weights a number was made with."""

    path: str
    sha256: str  # of the file's bytes
    published: bool  # whether they are those of the FID reference network


def load_inception(path=None):
    """Reads the weights of the FID reference network.

    Args:
      path: a file with PyTorch's names (.pth, .safetensors or .npz); by default the published one,
        which is downloaded if it is not there yet.

    Returns:
      (variables for `InceptionV3.apply`, float32 NumPy arrays; `Provenance`).

    Raises:
      UserError: the file cannot be had or read, or is not of this network.
    """
    path = find(INCEPTION, path)
    arrays, sha256 = read_arrays(path)
    provenance = Provenance(str(path), sha256, sha256 == INCEPTION.file.sha256)
    return from_torch(arrays, path), provenance


def from_torch(arrays, path):
    """Variables from {PyTorch name: array}; strict: every name and shape, and no others.

    Args:
      arrays: as `read_arrays` returns them.
      path: where they come from, for messages.
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


def torch_layout():
    """{PyTorch name: (path in our variables, PyTorch shape)} of all 472 arrays."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
    layout = {}
    for path, leaf in flax.traverse_util.flatten_dict(variables).items():
        collection, *module, kind = path
        name = ".".join([*module, _TORCH_NAMES[collection, kind]])
        axes = np.argsort(_to_linen(leaf.ndim))
        layout[name] = path, tuple(leaf.shape[axis] for axis in axes)
    return layout


def _to_linen(ndim):
    """Axes of PyTorch's array in our order: OIHW -> HWIO, OI -> IO, O -> O."""
    return {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[ndim]
