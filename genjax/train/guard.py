"""Finds numbers that are not finite in the step that makes them, on the device, and names them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    flags = [all_finite(x) for x in _checked(new_state, metrics).values()]
    # The stop is negated, so that one reduction over the devices answers all questions.
    flags = all_over_devices(jnp.stack([*flags, ~stop]))
    metrics = {k: v for k, v in metrics.items() if k != "grads"}
    if policy == "skip":
        same = old_state.replace(step=old_state.step + 1, skipped=old_state.skipped + 1)
        finite = flags[:-1].all()
        new_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new_state, same)
        metrics["skipped_steps"] = new_state.skipped
    return new_state, (metrics, flags.at[-1].set(~flags[-1]))


def all_finite(x: jax.Array) -> jax.Array:
    """Returns whether all numbers of an array are finite, a bool scalar."""
    if platform() != "cpu" or x.size < 2:
        return jnp.isfinite(x).all()
    # XLA:CPU takes twice as long for an `and` as for a matrix product with a vector, from which no
    # finite number comes out infinite: its weights are too small.
    weights = jnp.full(x.shape[-1], 1e-20, x.dtype)
    return jnp.isfinite(jnp.sum(x.reshape(-1, x.shape[-1]) @ weights))


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


def _checked(state, metrics):
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
                found[name + jax.tree_util.keystr(path)] = x
    return found
