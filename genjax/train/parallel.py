"""How a step is spread over devices and processes: the only file that knows them.

`Parallel("jit")` runs a step on the global batch, sharded over a one-axis mesh; the compiler adds
the communication. `Parallel("fsdp")` does the same with the state sharded too. `Parallel("pmap")`
runs the step once a device on its share of the batch, and the step averages over the devices
itself (`genjax.devices`). All give the same numbers up to rounding, on one process or on many.

With several processes (`start_processes`), every process runs the same program and reads its own
rows of each global batch; process 0 is the main one, which writes what is not a checkpoint.
"""

import contextlib
import ctypes
import dataclasses
import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.multihost import get_barrier_sync_fn

from genjax.devices import AXIS, cutting_as, gathered, scan, tracing_for
from genjax.errors import UserError
from genjax.messages import write_line
from genjax.train.state import TrainState

KINDS = ("jit", "pmap", "fsdp")

# fsdp leaves smaller arrays whole on every device: gathering them costs more than they take.
FSDP_MIN_SIZE = 2**12

_TILE = 8  # rows of an array that a TPU keeps together


def start_processes(
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
    start_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> None:
    """Joins the processes of one run; call it before anything touches a device.

    Args:
      coordinator: "host:port" of process 0; "" lets JAX find it, with the number of processes and
        this one's place, from SLURM, a TPU pod, Open MPI or Kubernetes.
      num_processes, process_id: where there is nothing to find them from.
      start_seconds: how long to wait for the other processes.
      heartbeat_seconds: how long a process may be silent before the others end.

    Raises:
      UserError: JAX finds no cluster, or the numbers do not fit.
      SystemExit: not all processes came in time; not to be caught, after one line on stderr.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # on accelerators unused
    given = f"--coordinator={coordinator or 'detected'}"
    given += f", --num_processes={'detected' if num_processes is None else num_processes}"
    given += f", --process_id={'detected' if process_id is None else process_id}"

    def give_up():
        write_line(
            f"error: not all processes of this run came within {start_seconds} s ({given}); start "
            "all of them, with one coordinator that each can reach, or wait longer with "
            "--start_seconds"
        )
        os._exit(UserError.exit_code)

    # At its own time limit, XLA aborts the process with a stack trace.
    timer = threading.Timer(start_seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes,
            process_id,
            initialization_timeout=start_seconds + 60,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"this process cannot join the others ({given}): {reason}") from error
    finally:
        timer.cancel()


def is_main() -> bool:
    """Returns whether this process is the one that writes logs, pictures and messages."""
    return jax.process_index() == 0


def agreed(flag: bool) -> bool:
    """Returns whether `flag` is true in every process; all of them have to call."""
    if jax.process_count() == 1:
        return bool(flag)
    return bool(multihost_utils.process_allgather(np.asarray(bool(flag))).all())


def from_main(number: int) -> int:
    """Returns the integer that the main process passes; all processes have to call."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def main_first(fn: Callable[[], Any]) -> Any:
    """Calls `fn` in the main process, then in the others, which find what it left on disk."""
    if jax.process_count() == 1:
        return fn()
    # Not sync_global_devices, whose collective would time out while the main process works.
    wait, day = get_barrier_sync_fn(), 24 * 3600 * 1000
    if not is_main():
        wait(key="main_first", timeout_ms=day)
        return fn()
    try:
        return fn()
    finally:
        wait(key="main_first", timeout_ms=day)


def in_main(fn: Callable[[], Any]) -> None:
    """Calls `fn()` in the main process; if it raises, every process raises.

    Raises:
      What `fn` raises, in the main process; in the others a UserError.
    """
    error = None
    if is_main():
        try:
            fn()
        except Exception as raised:
            error = raised
    if not agreed(error is None):
        raise error or UserError("the main process of this run ended; its message says why")


def keep_heap() -> None:
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


FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def leave_out_wrong_fusions() -> str:
    """Makes XLA compile for CPUs without YNNPACK; call it before the first use of a device.

    XLA:CPU of jaxlib 0.12.0.1 fuses with YNNPACK by default. In bfloat16 a residual block followed
    by a mean then returns memory that was never written; float32 was right wherever it was
    compared, and is slower without.

    Returns:
      The user's own flag of this name in XLA_FLAGS, which wins; "" if there is none.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    own = [flag for flag in flags.split() if flag.startswith(FUSION_FLAG)]
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if version >= (0, 11) and not own:
        os.environ["XLA_FLAGS"] = f"{flags} {FUSION_FLAG}=".strip()
    return own[-1] if own else ""


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a step is spread over devices.

    Attributes:
      kind: "jit", "pmap" or "fsdp".
      devices: tuple of jax devices, those of each process together.
    """

    kind: str
    devices: tuple

    @classmethod
    def create(cls, kind: str, num_devices: int = 0) -> "Parallel":
        """Takes the first `num_devices` devices of all processes, 0 for all there are."""
        available = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
        if num_devices > len(available):
            raise UserError(
                f"config.num_devices={num_devices}, but there are {len(available)} "
                f"({available[0].platform})"
            )
        if jax.process_count() > 1 and num_devices not in (0, len(available)):
            raise UserError(
                f"config.num_devices={num_devices} must be 0 or {len(available)} with "
                f"{jax.process_count()} processes"
            )
        return cls(kind, tuple(available[: num_devices or len(available)]))

    @property
    def size(self) -> int:
        return len(self.devices)

    @property
    def platform(self) -> str:
        """What the devices are, "cpu", "gpu" or "tpu"; they need not be of this machine."""
        return self.devices[0].platform

    def tracing(self) -> contextlib.AbstractContextManager[None]:
        """Makes what is traced within a block a program for these devices."""
        stack = contextlib.ExitStack()
        stack.enter_context(tracing_for(self.devices[0]))
        stack.enter_context(cutting_as(self if self.kind == "fsdp" else None))
        return stack

    def _for_devices(self, fn: Callable) -> Callable:
        """Returns `fn` in the form that it has on these devices, wherever it is traced."""

        def traced(*args):
            with self.tracing():
                return fn(*args)

        traced.__name__ = getattr(fn, "__name__", type(fn).__name__)
        return traced

    def round_up(self, batch_size: int) -> int:
        """Returns the next batch size that the devices divide."""
        return -(-batch_size // self.size) * self.size

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of a global batch that this process reads."""
        share = batch_size // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    @functools.cached_property
    def mesh(self) -> Mesh:
        return _mesh(self.devices)

    def _sharding(self, *spec):
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    @functools.cached_property
    def _stacked(self):
        """Under pmap: the leading axis over this process's devices."""
        local = [d for d in self.devices if d.process_index == jax.process_index()]
        return NamedSharding(_mesh(local), PartitionSpec(AXIS))

    def shardings(self, tree: Any) -> Any:
        """Returns where the leaves of a state, or of a part of it, are.

        They are whole on every device; fsdp cuts the large ones, but those of a model state.
        """
        whole = lambda tree: jax.tree.map(lambda _: self._sharding(), tree)
        found = jax.tree.map(lambda x: self._sharding(*self._cut(x.shape)), tree)
        if isinstance(tree, TrainState):
            found = found.replace(model_state=whole(tree.model_state))
        return found

    def _cut(self, shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """Returns the axis over devices for the dimension that is cut, None for the others; () for
        an array that is whole on every device."""
        cuts = [d for d, n in enumerate(shape) if n % self.size == 0]
        if self.kind != "fsdp" or math.prod(shape) < FSDP_MIN_SIZE or not cuts:
            return ()
        # The longest one of those whose pieces fill the tiles of a TPU, which would pad the others
        # and shift their rows to the next device.
        fills = lambda d: shape[d] // self.size % _TILE == 0
        best = max(cuts, key=lambda d: (fills(d), shape[d]))
        return tuple(AXIS if d == best else None for d in range(len(shape)))

    def gather(self, x: jax.Array) -> jax.Array:
        """Returns a traced array of a state whole on every device; its gradient is cut again.

        The gradient is first summed over the devices: where it is cut right away the compiler cuts
        the activations that it comes from, and sends those around. The sum and the cut are one
        reduce-scatter where a backend has it.
        """
        cut = self._cut(x.shape)
        if not cut:
            return x
        constrain = jax.lax.with_sharding_constraint
        return constrain(constrain(x, self._sharding(*cut)), self._sharding())

    def template(self, tree: Any) -> Any:
        """Returns what a checkpoint is restored into: shapes, dtypes and shardings."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            tree,
            self.shardings(tree),
        )

    def init(self, fn: Callable[[], Any]) -> Any:
        """Returns the pytree that the pure function `fn()` makes, on the devices as a state is."""
        fn = self._for_devices(fn)
        if self.kind == "pmap":
            return self.replicate(jax.jit(fn)())
        return jax.jit(fn, out_shardings=self.shardings(jax.eval_shape(fn)))()

    def replicate(self, tree: Any) -> Any:
        """Puts a pytree of this process's arrays completely on every device."""
        if self.kind == "pmap":
            num = self._stacked.mesh.size
            stacked = jax.tree.map(lambda x: jnp.stack([x] * num), tree)
            return jax.device_put(stacked, self._stacked)
        # A copy: the result is donated to the step, and the caller's arrays must outlive that.
        return jax.device_put(jax.tree.map(jnp.copy, tree), self._sharding())

    def to_global(self, tree: Any) -> Any:
        """Returns a state with one copy of each leaf over all processes, as it is saved."""
        if self.kind != "pmap":
            return tree

        def leaf(x):
            shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
            copies = [s.data[0] for s in shards]  # x[0] would communicate
            return jax.make_array_from_single_device_arrays(
                copies[0].shape, self._sharding(), copies
            )

        return jax.tree.map(leaf, tree)

    def from_global(self, tree: Any) -> Any:
        """Undoes `to_global`; `tree` is consumed."""
        if self.kind != "pmap":
            return tree
        return self.replicate(jax.tree.map(lambda x: x.addressable_data(0), tree))

    def to_local(self, tree: Any) -> Any:
        """Returns a copy on one device of this process, for figures; all processes have to call."""
        if self.kind == "fsdp":
            whole = jax.tree.map(lambda _: self._sharding(), tree)
            tree = jax.jit(lambda x: x, out_shardings=whole)(tree)
        return jax.tree.map(lambda x: x.addressable_data(0), self.to_global(tree))

    def shard(self, batch: Any, stacked: bool = False) -> Any:
        """Spreads this process's rows of a batch [b, ...] (stacked: [K, b, ...]) over devices."""
        if self.kind != "pmap":
            sharding = self._sharding(*((None, AXIS) if stacked else (AXIS,)))
            if jax.process_count() == 1:
                return jax.device_put(batch, sharding)
            return jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(sharding, x), batch
            )

        def split(x):
            lead = x.shape[:1] if stacked else ()
            x = x.reshape(*lead, self._stacked.mesh.size, -1, *x.shape[len(lead) + 1 :])
            return np.moveaxis(x, 1, 0) if stacked else x

        return jax.device_put(jax.tree.map(split, batch), self._stacked)

    def abstract_state(self, tree: Any) -> Any:
        """Returns the shapes of a state as the compiled functions take it."""
        if self.kind != "pmap":
            return self.template(tree)
        stack = lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype)
        return jax.tree.map(stack, tree)

    def abstract_batch(self, tree: Any) -> Any:
        """Returns the shapes of a global batch [B, ...] as the compiled functions take it."""
        if self.kind != "pmap":
            sharded = self._sharding(AXIS)
            make = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharded)
        else:
            make = lambda x: jax.ShapeDtypeStruct(
                (self.size, x.shape[0] // self.size, *x.shape[1:]), x.dtype
            )
        return jax.tree.map(make, tree)

    def compile_train_step(
        self, train_step: Callable, state: Any, steps_per_call: int = 1
    ) -> Callable:
        """Compiles a pure step; the state's buffers are donated.

        Args:
          train_step: (state, batch[, dataset]) -> (state, metrics).
          state: the state, or its `jax.eval_shape`; only shapes matter.
          steps_per_call: steps per dispatch. With more than one, batches are stacked [K, B, ...].

        Returns:
          The same function over what `init`, `shard` and `replicate` return; the metrics are
          stacked [K, ...] with more than one step per call.
        """

        def several_steps(state, batches, *dataset):
            return scan(lambda s, b: train_step(s, b, *dataset), state, batches)

        step = self._for_devices(train_step if steps_per_call == 1 else several_steps)
        if self.kind == "pmap":
            return jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=0)
        shardings = (self.shardings(state), self._sharding())
        return jax.jit(step, out_shardings=shardings, donate_argnums=0)

    def compile_map(self, fn: Callable[[Any, Any], dict]) -> "Mapped":
        """Compiles `fn(tree, batch) -> {name: [B, ...]}`, row by row independent, over the devices.

        Returns:
          (tree on the devices, this process's rows of a batch [B, ...]) -> the outputs for the
          whole batch as numpy arrays [B, ...], in every process; B must be a multiple of the
          number of devices.
        """
        fn = self._for_devices(_of_gathered(fn))
        if self.kind == "pmap":
            return Mapped(self, jax.pmap(fn, axis_name=AXIS, devices=self.devices))
        return Mapped(self, jax.jit(fn, out_shardings=self._sharding(AXIS)))

    def compile_tree(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Compiles `fn(tree) -> tree`, over trees that are on the devices as a state is."""
        fn = self._for_devices(_of_gathered(fn))
        if self.kind == "pmap":
            return jax.pmap(fn, axis_name=AXIS, devices=self.devices)

        def run(tree):
            return jax.jit(fn, out_shardings=self.shardings(jax.eval_shape(fn, tree)))(tree)

        return run

    def fetch(self, tree: Any) -> Any:
        """Copies a small replicated pytree (metrics) to the host."""
        if self.kind == "pmap":
            tree = jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return jax.device_get(tree)


@dataclasses.dataclass(frozen=True)
class Mapped:
    """What `Parallel.compile_map` returns.

    Attributes:
      parallel: the devices.
      program: over arrays on the devices.
    """

    parallel: Parallel
    program: Callable

    def __call__(self, tree: Any, batch: Any) -> Any:
        """Returns numpy arrays [B, ...] of the whole batch; see `Parallel.compile_map`."""
        out = self.program(tree, self.parallel.shard(batch))
        if self.parallel.kind == "pmap":
            out = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(out))
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(out, tiled=True)
        return jax.device_get(out)


def _of_gathered(fn: Callable) -> Callable:
    """Returns a function of trees of a state that computes with whole arrays."""

    @functools.wraps(fn)
    def run(tree, *args):
        return fn(gathered(tree), *args)

    return run


def _mesh(devices):
    # Not jax.make_mesh, which puts a TPU's devices into another order: `rows` counts on this one.
    # Auto axes: with explicit ones linen's Dropout raises.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
