"""The only file that knows devices.

`Parallel("jit")` runs a step on the global batch, sharded over a one-axis mesh; the compiler adds
the communication. `Parallel("pmap")` runs the step once a device on its share of the batch, and
the step averages over `axis_name` itself. Both give the same numbers up to rounding.
"""

import ctypes
import dataclasses
import functools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from genjax.errors import UserError

AXIS = "data"
KINDS = ("jit", "pmap")


def mean_over_devices(tree, axis_name):
    """Averages a pytree over the devices of `axis_name`; None means that there is no such axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def scan(body, carry, xs):
    """`jax.lax.scan`, but without a loop on CPU.

    XLA:CPU runs convolutions inside a loop on one thread: four parts of a VAE's batch took 640 ms
    in a loop, 65 ms one after another.
    """
    return jax.lax.scan(body, carry, xs, unroll=jax.default_backend() == "cpu")


def keep_heap():
    """Makes the C library keep freed memory; call it before the first use of a device.

    XLA:CPU takes the working memory of a step anew each time. glibc gives blocks above 32 MB back
    to the kernel, which then clears every page again: a step of the tutorial's VAE takes 74 ms
    with that and 50 ms without. No effect on another C library, or beside an accelerator.
    """
    accelerators = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio")
    if sys.platform != "linux" or any(map(os.path.exists, accelerators)):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_arena_max, 1)  # the arenas of other threads cannot hold large blocks


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a step is spread over devices.

    Attributes:
      kind: "jit" or "pmap".
      devices: tuple of jax devices.
    """

    kind: str
    devices: tuple

    @classmethod
    def create(cls, kind, num_devices=0):
        """Takes the first `num_devices` devices, 0 for all there are."""
        available = jax.devices()
        if num_devices > len(available):
            raise UserError(
                f"config.num_devices={num_devices}, but there are {len(available)} "
                f"({available[0].platform})"
            )
        return cls(kind, tuple(available[: num_devices or len(available)]))

    @property
    def axis_name(self):
        """What a step has to average over by itself: "data" under pmap, None under jit."""
        return AXIS if self.kind == "pmap" else None

    @property
    def size(self):
        return len(self.devices)

    def round_up(self, batch_size):
        """The next batch size that the devices divide."""
        return -(-batch_size // self.size) * self.size

    @functools.cached_property
    def mesh(self):
        # Auto axes: with make_mesh's default, explicit ones, linen's Dropout raises.
        return jax.make_mesh(
            (self.size,), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices
        )

    def _sharding(self, *spec):
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def replicate(self, tree):
        """Puts a pytree on every device."""
        if self.kind == "pmap":
            stacked = jax.tree.map(lambda x: jnp.stack([x] * self.size), tree)
            return jax.device_put(stacked, self._sharding(AXIS))
        # A copy: the result is donated to the step, and the caller's arrays must outlive that.
        return jax.device_put(jax.tree.map(jnp.copy, tree), self._sharding())

    def unreplicate(self, tree):
        """One copy of a replicated pytree, for the host, checkpoints and pictures."""
        if self.kind == "pmap":
            # The first device's own copy; x[0] would communicate.
            return jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return tree

    def shard(self, batch, stacked=False):
        """Spreads a host batch [B, ...] (or, stacked, [K, B, ...]) over the devices."""
        if self.kind == "jit":
            spec = (None, AXIS) if stacked else (AXIS,)
            return jax.device_put(batch, self._sharding(*spec))

        def split(x):
            lead = x.shape[:1] if stacked else ()
            x = x.reshape(*lead, self.size, -1, *x.shape[len(lead) + 1 :])
            return np.moveaxis(x, 1, 0) if stacked else x

        return jax.device_put(jax.tree.map(split, batch), self._sharding(AXIS))

    def compile_train_step(self, train_step, steps_per_call=1, resident=False):
        """Compiles a pure step; the state's buffers are donated.

        Args:
          train_step: (state, batch) -> (state, metrics), made for this `axis_name`.
          steps_per_call: steps per dispatch. With more than one, batches are stacked [K, B, ...]
            and the metrics are those of the last step.
          resident: if True, the compiled step takes a third argument, the whole dataset on the
            device as {"image", "label"}, and batches carry "index" and "slot" alone.

        Returns:
          (state, batch[, dataset]) -> (state, metrics) over what `replicate`, `shard` return.
        """

        def one(state, batch, dataset):
            if resident:
                batch = {**jax.tree.map(lambda x: x[batch["index"]], dataset), **batch}
            return train_step(state, batch)

        def many(state, batches, dataset):
            state, metrics = scan(lambda s, b: one(s, b, dataset), state, batches)
            return state, jax.tree.map(lambda m: m[-1], metrics)

        step = one if steps_per_call == 1 else many
        if self.kind == "pmap":
            compiled = jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=0)
        else:
            whole = self._sharding()
            compiled = jax.jit(step, out_shardings=whole, donate_argnums=0)
        return compiled if resident else functools.partial(_without_dataset, compiled)

    def compile_map(self, fn):
        """Compiles `fn(tree, batch) -> {name: [B, ...]}`, row by row independent, over the devices.

        Returns:
          (replicated tree, host batch [B, ...]) -> the outputs as numpy arrays [B, ...]; B must be
          a multiple of the number of devices.
        """
        if self.kind == "pmap":
            mapped = jax.pmap(fn, axis_name=AXIS, devices=self.devices)

            def run(tree, batch):
                out = jax.device_get(mapped(tree, self.shard(batch)))
                return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

        else:
            mapped = jax.jit(fn, out_shardings=self._sharding(AXIS))

            def run(tree, batch):
                return jax.device_get(mapped(tree, self.shard(batch)))

        return run

    def fetch(self, metrics):
        """Scalars of a step on the host, as floats."""
        return {k: float(v) for k, v in jax.device_get(self.unreplicate(metrics)).items()}


def _without_dataset(compiled, state, batch):
    return compiled(state, batch, None)
