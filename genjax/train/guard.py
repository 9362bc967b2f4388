"""Finds numbers that are not finite in the step that makes them, on the device, and names them."""

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.devices import all_over_devices, platform
from genjax.errors import RunError
from genjax.train.state import TrainState

# What to do about a step with a NaN or an infinity: stop; leave its update out; go back to the
# newest checkpoint and continue from there with later data.
POLICIES = ("raise", "skip", "rollback")


class NotFinite(RunError):
    """A step made numbers that are not finite.

    Attributes:
      step: the number of the step, from 1.
    """

    def __init__(self, step: int, names: list[str], index: np.ndarray):
        self.step = step
        rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
        examples = ", ".join(map(str, index[:8])) + (", ..." if len(index) > 8 else "")
        super().__init__(
            f"step {step}: not finite: {', '.join(names[:4])}{rest} (examples {examples})"
        )


def guard(
    old_state: TrainState,
    new_state: TrainState,
    metrics: dict[str, Any],
    stop: jax.Array,
    policy: str,
) -> tuple[TrainState, tuple[dict[str, Any], jax.Array]]:
    """Checks the outcome of a step on the device.

    One bool decides: whether all numbers of the metrics and of the new state, and the sum of
    squares of each gradient, are finite. So a step is found in which a loss, a gradient (also one
    that clipping or skipping hides from the parameters), a batch statistic, a moment, a parameter
    or an average overflows, and none but that step. The names of what is not finite are found in a
    branch of the program that runs only then.

    With the policy "skip" a step that is not finite changes nothing but `step` and `skipped`.

    Args:
      old_state, new_state: before and after the step.
      metrics: of the step, with "grads".
      stop: bool scalar, whether this process asks to stop.
      policy: one of `POLICIES`.

    Returns:
      (state, (metrics without "grads", health)); health is a bool vector: for each name in
      `checked_names` whether it is finite, and last whether any process asks to stop.
    """
    checked = list(_checked(new_state, metrics).values())
    # The stop is negated, so that one reduction over the devices answers both questions.
    finite, goes_on = all_over_devices(jnp.stack([all_finite(checked), ~stop]))
    flags = jax.lax.cond(
        finite,
        lambda arrays: jnp.ones(len(arrays), bool),
        lambda arrays: all_over_devices(jnp.stack([jnp.isfinite(x).all() for x in arrays])),
        checked,
    )
    metrics = {k: v for k, v in metrics.items() if k != "grads"}
    if policy == "skip":
        same = old_state.replace(step=old_state.step + 1, skipped=old_state.skipped + 1)
        new_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new_state, same)
        metrics["skipped_steps"] = new_state.skipped
    return new_state, (metrics, jnp.append(flags, ~goes_on))


def all_finite(arrays: Sequence[jax.Array]) -> jax.Array:
    """Returns whether all numbers of all arrays are finite, a bool scalar.

    Arrays of the same shape, such as a parameter and its moments, are combined number by number
    before they are reduced: there are as many reductions as shapes.
    """
    by_shape = collections.defaultdict(list)
    for x in arrays:
        by_shape[x.shape].append(jnp.isfinite(x))
    combined = [functools.reduce(jnp.logical_and, masks) for masks in by_shape.values()]
    return functools.reduce(jnp.logical_and, map(_all, combined), jnp.ones((), bool))


def _all(mask: jax.Array) -> jax.Array:
    if platform() != "cpu" or mask.size < 2:
        return mask.all()
    # XLA:CPU takes twice as long for an `and` as for a matrix product with a vector.
    return jnp.sum((~mask).astype(jnp.float32) @ jnp.ones(mask.shape[-1])) == 0


def checked_names(advance: Callable, state: Any, batch: Any) -> list[str]:
    """Returns the names of what `guard` checks, in its order.

    Args:
      advance: (state, batch) -> (state, metrics with "grads").
      state, batch: shapes.
    """
    names = []  # filled while tracing: results of eval_shape have their keys sorted

    def look(state, batch):
        found = _checked(*advance(state, batch))
        names.extend(found)
        return list(found.values())

    jax.eval_shape(look, state, batch)
    return names


def _checked(state: Any, metrics: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns what has to be finite, by name: every leaf, but of a gradient its sum of squares."""
    trees = {
        "metrics": {k: v for k, v in metrics.items() if k != "grads"},
        "grads": metrics.get("grads", {}),
        "params": state.params,
        "model_state": state.model_state,
        "opt_state": state.opt_state,
        "ema_params": state.ema_params,
    }
    found = {}
    for name, tree in trees.items():
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if jnp.issubdtype(x.dtype, jnp.inexact):
                # The metric of the gradient's norm adds the same sums up: they cost nothing more.
                x = optax.tree.norm(x, squared=True) if name == "grads" else x
                found[name + jax.tree_util.keystr(path)] = x
    return found
