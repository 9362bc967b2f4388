"""Small programs that are compiled, run and compared with NumPy before a run starts.

A compiler can be wrong without a word: XLA:CPU of jaxlib 0.12.0.1 returns memory that was never
written for some graphs in bfloat16. A run whose device fails one of these programs ends with one
line. What passed is remembered for this jaxlib, machine and flags.
"""

import hashlib
import json
import os
import platform as host
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

from genjax.devices import platform
from genjax.errors import UserError
from genjax.files import cache_root, write_json
from genjax.models.attention import attend
from genjax.models.layers import ConvTranspose

# The largest difference, as a share of the largest value. Accelerators multiply float32 in fewer
# bits unless asked not to (TF32 on a GPU, bfloat16 on a TPU).
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}
ACCELERATOR_TOLERANCE = 0.02
REPEATS = 3  # memory that was never written may be right by chance


def check_compiler(dtype: str) -> None:
    """Compares each program with NumPy, in float32 and in `dtype`, on this process's device.

    Raises:
      UserError: a result is wrong or not finite; the message names versions and flags.
    """
    for name in dict.fromkeys(("float32", dtype)):
        path = _record(name)
        if path.exists():
            continue
        wrong = wrong_programs(name)
        if wrong:
            flags = os.environ.get("XLA_FLAGS", "")
            raise UserError(
                f"programs compiled here in {name} return wrong numbers ({', '.join(wrong)}): "
                f"jaxlib {jaxlib.__version__}, {jax.local_devices()[0].device_kind}, "
                f"XLA_FLAGS='{flags}'; use another version of jaxlib or, on a CPU, "
                "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= (with nothing behind it)"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"jaxlib": jaxlib.__version__, "dtype": name, "passed": list(PROGRAMS)})


def wrong_programs(dtype: str) -> list[str]:
    """Returns the names of the programs whose results in `dtype` are not NumPy's."""
    on_cpu = platform() == "cpu"
    tolerance = TOLERANCE[dtype] if on_cpu else ACCELERATOR_TOLERANCE
    wrong = []
    for name, (program, reference, arrays) in PROGRAMS.items():
        inputs = [jnp.asarray(x, dtype) for x in arrays()]
        exact = reference(*(np.asarray(x, np.float32) for x in inputs))
        compiled = jax.jit(program)
        for _ in range(REPEATS):
            result = np.asarray(compiled(*inputs), np.float32)
            # Written so that a NaN counts as wrong.
            if not np.abs(result - exact).max() <= tolerance * np.abs(exact).max():
                wrong.append(name)
                break
    return wrong


def _record(dtype: str) -> Path:
    """Returns the file whose existence says that all programs passed."""
    cpuinfo = Path("/proc/cpuinfo")  # of Linux
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [host.processor()]
    device = jax.local_devices()[0]
    key = [
        jaxlib.__version__,
        device.device_kind,
        device.client.platform_version,
        host.machine(),
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}),
        os.environ.get("XLA_FLAGS", ""),
        jax.config.read("jax_disable_most_optimizations"),
        dtype,
        list(PROGRAMS),
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return cache_root() / "compiler" / f"{digest[:16]}.json"


# --- The programs, each with its reference in NumPy -----------------------------------------------


def _draw(*shapes: tuple[tuple[int, ...], float]) -> Callable[[], list[np.ndarray]]:
    """Returns a function that draws normal arrays of the given (shape, standard deviation)."""

    def arrays():
        rng = np.random.RandomState(0)
        return [rng.randn(*shape).astype(np.float32) * std for shape, std in shapes]

    return arrays


def _conv(x, kernel, stride=1):
    pad = ((kernel.shape[0] // 2, kernel.shape[0] // 2),) * 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=numbers)


def _numpy_patches(x, size, stride):
    """Yields (i, j, the inputs that tap (i, j) of a convolution meets)."""
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows, cols = (-(-(n - size + 1) // stride) for n in x.shape[1:3])
    for i in range(size):
        for j in range(size):
            yield i, j, x[:, i::stride, j::stride][:, :rows, :cols]


def _numpy_conv(x, kernel, stride=1):
    return sum(p @ kernel[i, j] for i, j, p in _numpy_patches(x, kernel.shape[0], stride))


def _normalize(h, xp):
    mean, var = h.mean((1, 2), keepdims=True), h.var((1, 2), keepdims=True)
    return (h - mean) / xp.sqrt(var + 1e-3)


def _residual_mean(x, kernel1, kernel2, shortcut):
    """A residual block with fixed scales, as batch norm has in evaluation, and a global mean."""
    scale = lambda h: ((h.astype(jnp.float32) - 0.1) * 1.5 + 0.2).astype(x.dtype)
    h = scale(_conv(jax.nn.relu(scale(_conv(x, kernel1, 2))), kernel2))
    h = jax.nn.relu(h + scale(_conv(x, shortcut, 2)))
    return h.astype(jnp.float32).mean((1, 2))


def _numpy_residual_mean(x, kernel1, kernel2, shortcut):
    scale, relu = lambda h: (h - 0.1) * 1.5 + 0.2, lambda h: np.maximum(h, 0)
    h = scale(_numpy_conv(relu(scale(_numpy_conv(x, kernel1, 2))), kernel2))
    return relu(h + scale(_numpy_conv(x, shortcut, 2))).mean((1, 2))


def _normalized_conv(x, kernel):
    return _normalize(_conv(x, kernel).astype(jnp.float32), jnp).astype(x.dtype)


def _numpy_normalized_conv(x, kernel):
    return _normalize(_numpy_conv(x, kernel), np)


def _weight_gradient(x, kernel, cotangent):
    return jax.vjp(lambda kernel: _conv(x, kernel, 2), kernel)[1](cotangent)[0]


def _numpy_weight_gradient(x, kernel, cotangent):
    grads = np.zeros_like(kernel)
    for i, j, patch in _numpy_patches(x, kernel.shape[0], 2):
        grads[i, j] = np.tensordot(patch, cotangent, ((0, 1, 2), (0, 1, 2)))
    return grads


def _transposed_conv(x, kernel):
    layer = ConvTranspose(kernel.shape[-1], (3, 3), (2, 2), use_bias=False, dtype=x.dtype)
    return layer.apply({"params": {"kernel": kernel}}, x)


def _numpy_transposed_conv(x, kernel):
    batch, height, width, channels = x.shape
    spread = np.zeros((batch, 2 * height, 2 * width, channels), x.dtype)
    spread[:, 1::2, 1::2] = x  # SAME pads two below a spread row of 3 taps, and one above
    return _numpy_conv(spread, kernel)


def _numpy_attention(q, k, v):
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


_images = ((32, 8, 8, 16), 1.0)
PROGRAMS = {
    "residual block and mean": (
        _residual_mean,
        _numpy_residual_mean,
        _draw(_images, ((3, 3, 16, 32), 1 / 12), ((3, 3, 32, 32), 1 / 17), ((1, 1, 16, 32), 1 / 4)),
    ),
    "convolution and normalisation": (
        _normalized_conv,
        _numpy_normalized_conv,
        _draw(_images, ((3, 3, 16, 32), 1 / 12)),
    ),
    "weight gradient": (
        _weight_gradient,
        _numpy_weight_gradient,
        _draw(_images, ((3, 3, 16, 32), 1 / 12), ((32, 4, 4, 32), 1.0)),
    ),
    "transposed convolution": (
        _transposed_conv,
        _numpy_transposed_conv,
        _draw(_images, ((3, 3, 16, 8), 1 / 12)),
    ),
    "attention": (attend, _numpy_attention, _draw(*[((4, 16, 2, 16), 1.0)] * 3)),
}
