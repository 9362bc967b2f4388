"""What code inside of a train step may ask about the devices that it runs on and shares.

Under `jit` and `fsdp` a step sees the whole batch, and the compiler adds the communication. Under
`pmap` a step sees the share of one device and has to average over the others itself; JAX then binds
an axis called `AXIS` while the step is traced. The functions below find that axis and use it, and
do nothing elsewhere, so a network, a loss or a family is written once for all three.

Where a computation has a form for each kind of device, `platform` says for which one the program is
traced: `Parallel` names it, because a program may be compiled for devices that are not here.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

AXIS = "data"

Tree = TypeVar("Tree")

# The platform, and a GPU's generation. Part of the key of JAX's caches: what was traced for one
# device is never taken for one of another kind.
_traced_for = jax.make_user_context(default_value=None)

# How `fsdp` cuts arrays, see `cutting_as`; a key of the caches, too.
_cut_as = jax.make_user_context(default_value=None)


def platform() -> str:
    """Returns "cpu", "gpu" or "tpu": what the current program is traced for.

    Outside of the programs of a run that is what JAX takes by default.
    """
    return (_traced_for.value or _described(jax.local_devices()[0]))[0]


def compute_capability() -> float:
    """Returns that of the GPU that the program is traced for, 9.0 for Hopper; 0 where unknown."""
    return (_traced_for.value or _described(jax.local_devices()[0]))[1]


def tracing_for(device: Any) -> AbstractContextManager[None]:
    """Makes the two functions above describe `device` within a block.

    Args:
      device: a `jax.Device`, or what has its `platform` and, for a GPU, `compute_capability`.
    """
    return _traced_for(_described(device))


def _described(device: Any) -> tuple[str, float]:
    try:
        return device.platform, float(device.compute_capability)
    except (AttributeError, ValueError):
        return device.platform, 0.0


def gathered(tree: Tree) -> Tree:
    """Returns parameters with every array whole on each device, to compute a loss from.

    Under `fsdp` the arrays of a state are cut, and a network must not compute with pieces: the
    compiler would move activations instead. So a function that is differentiated calls this first:
    its gradients are averaged over the devices, then cut as the parameters are. Elsewhere it
    returns the tree itself.
    """
    layout = _cut_as.value
    return tree if layout is None else jax.tree.map(layout.gather, tree)


def cutting_as(layout: Any) -> AbstractContextManager[None]:
    """Makes `gathered` apply `layout.gather` to arrays within a block.

    Args:
      layout: hashable, None for a tree that is not cut.
    """
    return _cut_as(layout)


def device_axis() -> str | None:
    """Returns the name of the axis over devices: `AXIS` inside of a pmapped step, else None."""
    try:
        jax.lax.axis_size(AXIS)
    except NameError:  # JAX's own: no axis of that name is bound
        return None
    return AXIS


def num_devices() -> int:
    """Returns how many devices share the batch of a pmapped step, 1 elsewhere."""
    return 1 if device_axis() is None else jax.lax.axis_size(AXIS)


def mean_over_devices(tree: Tree) -> Tree:
    """Averages every leaf over the devices of a pmapped step; returns the tree itself elsewhere."""
    axis = device_axis()
    return tree if axis is None else jax.lax.pmean(tree, axis)


def sum_over_devices(tree: Tree) -> Tree:
    """Adds every leaf up over the devices of a pmapped step; returns the tree itself elsewhere."""
    axis = device_axis()
    return tree if axis is None else jax.lax.psum(tree, axis)


def gather_over_devices(x: jax.Array) -> jax.Array:
    """Joins the shares [b, ...] of all devices to [B, ...]; returns x itself outside of pmap."""
    axis = device_axis()
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def previous_over_devices(x: jax.Array) -> jax.Array:
    """Returns for each row [b, ...] the one before it in the batch of all devices, cyclically."""
    axis = device_axis()
    if axis is None:
        return jnp.roll(x, 1, axis=0)
    num = jax.lax.axis_size(axis)
    last = jax.lax.ppermute(x[-1:], axis, [(i, (i + 1) % num) for i in range(num)])
    return jnp.concatenate([last, x[:-1]])


def all_over_devices(flags: jax.Array) -> jax.Array:
    """Tells for each bool flag whether it is true on every device."""
    axis = device_axis()
    return flags if axis is None else jax.lax.pmin(flags.astype(jnp.int32), axis) == 1


def scan(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan(body, carry, xs)`, unrolled without any loop on CPU.

    XLA:CPU runs convolutions inside a loop on one thread: four parts of a VAE's batch took 640 ms
    in a loop, 65 ms one after another. `unroll=True` is no remedy: with JAX 0.12 a loop of one step
    remains, and in it a step of a DCGAN takes 9 s instead of 0.3, because of strided gradients.
    """
    if platform() != "cpu":
        return jax.lax.scan(body, carry, xs)
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0])):
        carry, y = body(carry, jax.tree.map(lambda x, i=i: x[i], xs))
        ys.append(y)
    return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)
