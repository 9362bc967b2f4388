"""Numbers that are not finite are found in the step that makes them, on the device, and named."""

import jax
import jax.numpy as jnp

from genjax.errors import RunError
from genjax.train.parallel import all_over_devices

# What to do about a step with a NaN or an infinity in it: stop; leave its update out; go back to
# the newest checkpoint and on from there with the data that would have come later.
POLICIES = ("raise", "skip", "rollback")


class NotFinite(RunError):
    """A step made numbers that are not finite.

    Attributes:
      step: the number of the step, from 1.
    """

    def __init__(self, step, names, index):
        self.step = step
        rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
        examples = ", ".join(map(str, index[:8])) + (", ..." if len(index) > 8 else "")
        super().__init__(
            f"step {step}: not finite: {', '.join(names[:4])}{rest} (examples {examples})"
        )


def guarded(train_step, policy, axis_name):
    """Wraps `(state, batch) -> (state, metrics)`; the result returns (state, (metrics, health)).

    `health` is a bool vector: for each name in `checked_names` whether it is finite, and last
    whether a process asked to stop (the batch's "stop" [B], if there is one, says so). With the
    policy "skip" a step that is not healthy changes nothing but `step` and `skipped`.
    """

    def step(state, batch):
        batch = dict(batch)
        stop = batch.pop("stop", jnp.zeros((), bool)).any()
        new_state, metrics = train_step(state, batch)
        flags = [all_finite(x) for x in _checked(new_state, metrics).values()]
        # The stop turned round, so that it too is a question of all devices.
        flags = all_over_devices(jnp.stack([*flags, ~stop]), axis_name)
        metrics = {k: v for k, v in metrics.items() if k != "grads"}
        if policy == "skip":
            same = state.replace(step=state.step + 1, skipped=state.skipped + 1)
            finite = flags[:-1].all()
            new_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new_state, same)
            metrics["skipped_steps"] = new_state.skipped
        return new_state, (metrics, flags.at[-1].set(~flags[-1]))

    return step


def all_finite(x):
    """Whether all numbers of an array are finite, a bool scalar."""
    if jax.default_backend() != "cpu" or x.size < 2:
        return jnp.isfinite(x).all()
    # XLA:CPU takes twice as long for an `and` as for a matrix product with a vector, from which no
    # finite number comes out infinite: its weights are too small.
    weights = jnp.full(x.shape[-1], 1e-20, x.dtype)
    return jnp.isfinite(jnp.sum(x.reshape(-1, x.shape[-1]) @ weights))


def checked_names(train_step, state, batch):
    """What `guarded` looks at, in its order: metrics, gradients, then every leaf of the state."""
    names = []  # filled while tracing: what comes back from there has its keys sorted

    def look(state, batch):
        found = _checked(*train_step(state, batch))
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
