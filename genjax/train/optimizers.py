"""Optimizers and learning-rate schedules by name, from optax, except `airbench`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.numerics import nonzero
from genjax.typing import Array, Float, Int, Params

# --- Muon -----------------------------------------------------------------------------------------


def _muon(
    learning_rate: optax.Schedule,
    *,
    b1: float | int,
    b2: float | int,
    eps: float | int,
    weight_decay: float | int,
    momentum: float | int,
) -> optax.GradientTransformation:
    """Returns Muon for matrices and kernels, as matrices [fan in, out], with Adam for vectors."""

    def matrices(params):
        def dimensions(p):
            if p.ndim < 2:
                return None
            return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

        return jax.tree.map(dimensions, params)

    return optax.contrib.muon(
        learning_rate,
        beta=momentum,
        adam_b1=b1,
        adam_b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=matrices,
    )


def orthogonalize(matrix: Float[Array, "m n"], steps: int = 3) -> Float[Array, "m n"]:
    """Approximates the orthogonal matrix closest to `matrix` by Newton-Schulz iterations.

    Their quintic polynomial (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) brings
    singular values between 0 and 1 to within about a third of 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (jnp.linalg.norm(matrix) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def _renormalized_muon(
    learning_rate: optax.Schedule, momentum: float | int
) -> optax.GradientTransformation:
    """Returns Muon for kernels [kh, kw, in, out], which it first scales to the norm sqrt(out)."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), optax.TraceState(zeros)

    def update(grads, state, params):
        schedule, trace = state
        momenta = jax.tree.map(lambda m, g: momentum * m + g, trace.trace, grads)
        lr = learning_rate(schedule.count)

        def change(p, g, m):
            rows = (g + momentum * m).reshape(-1, p.shape[-1])  # Nesterov
            scaled = p * jnp.sqrt(p.shape[-1]) / nonzero(jnp.linalg.norm(p))
            return scaled - lr * orthogonalize(rows).reshape(p.shape) - p

        updates = jax.tree.map(change, params, grads, momenta)
        return updates, (optax.ScaleByScheduleState(schedule.count + 1), optax.TraceState(momenta))

    return optax.GradientTransformation(init, update)


# Learning rates of the speed run's other parameters over that of its kernels, 0.24. There they are
# 0.053 and 0.67, for a loss summed over a batch of 2,000.
_AIRBENCH_BIASES = 0.053 * 2000 / 0.24
_AIRBENCH_HEAD = 0.67 * 2000 / 0.24
_AIRBENCH_WHITENING_SHARE = 3 / 8  # of the training, during which the first bias is trained


def _airbench(
    schedule: optax.Schedule,
    *,
    momentum: float | int,
    weight_decay: float | int,
    warmup_steps: int = 0,
) -> optax.GradientTransformation:
    """Returns the optimizer of `genjax.models.airbench`: Muon for kernels, SGD for the rest.

    Args:
      schedule: falls linearly to 0, after the warm-up.
      momentum: of Muon.
      weight_decay: share of a parameter subtracted per step, at the peak learning rate.
      warmup_steps: of the schedule.
    """
    peak = schedule(warmup_steps)
    at_rest = float(peak) == 0  # nothing is trained, and nothing decays

    def sgd(factor, share=1.0):
        def learning_rate(step):
            remaining = schedule(step) / (1.0 if at_rest else peak)
            falling = jnp.maximum(0.0, 1 - (1 - remaining) / share)
            if warmup_steps:
                falling = jnp.where(step < warmup_steps, remaining, falling)
            return factor * peak * falling

        return optax.chain(
            optax.add_decayed_weights(0.0 if at_rest else weight_decay / (factor * peak)),
            optax.sgd(learning_rate, momentum=0.85, nesterov=True),
        )

    def label(path, p):
        if path[-1].key == "whitening_bias":
            return "whitening"
        return {1: "bias", 2: "head", 4: "kernel"}[p.ndim]

    return optax.multi_transform(
        {
            "kernel": _renormalized_muon(schedule, momentum),
            "bias": sgd(_AIRBENCH_BIASES),
            "head": sgd(_AIRBENCH_HEAD),
            "whitening": sgd(_AIRBENCH_BIASES, _AIRBENCH_WHITENING_SHARE),
        },
        lambda params: jax.tree_util.tree_map_with_path(label, params),
    )


# --- Optimizers and schedules by name -------------------------------------------------------------

_LBFGS_MEMORY = 10  # steps whose gradients its model of the curvature uses

# config.optim.name -> (learning rate, options of `make_optimizer`) -> optimizer.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": lambda lr, *, b1, b2, eps, **_: optax.adam(lr, b1, b2, eps),
    "adamw": lambda lr, *, b1, b2, eps, weight_decay, **_: optax.adamw(
        lr, b1, b2, eps, weight_decay=weight_decay, mask=_kernels
    ),
    "adamax": lambda lr, *, b1, b2, eps, **_: optax.adamax(lr, b1, b2, eps),
    "lbfgs": lambda lr, **_: optax.lbfgs(None, memory_size=_LBFGS_MEMORY),
    "muon": lambda lr, *, b1, b2, eps, weight_decay, momentum, **_: _muon(
        lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, momentum=momentum
    ),
    "airbench": lambda lr, *, momentum, weight_decay, warmup_steps, **_: _airbench(
        lr, momentum=momentum, weight_decay=weight_decay, warmup_steps=warmup_steps
    ),
    "sgd": lambda lr, *, momentum, weight_decay, **_: optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(lr, momentum=momentum or None, nesterov=momentum > 0),
    ),
}

# Those with a line search: their update needs the loss as a function, which only families with
# their own train step provide.
LINE_SEARCHING = ("lbfgs",)

# Those that support weight decay.
DECAYING = ("adamw", "airbench", "muon", "sgd")

# config.optim.schedule -> (learning rate after warm-up, remaining steps) -> schedule.
SCHEDULES: dict[str, Callable[[float | int, int], optax.Schedule]] = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, max(steps, 1)),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, max(steps, 1)),
}


def _kernels(params: Params) -> Any:
    """Returns a tree of bool, True for matrices and kernels: only they have weight decay."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_schedule(
    learning_rate: float | int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    num_train_steps: int = 1,
) -> optax.Schedule:
    """Returns step -> learning rate: first a linear warm-up, then `SCHEDULES[schedule]`.

    The n steps of a warm-up have 1/n, 2/n, ..., 1 of the learning rate: none of them does nothing.
    """
    main = SCHEDULES[schedule](learning_rate, num_train_steps - warmup_steps)
    if warmup_steps == 0:
        return main
    warmup = lambda step: learning_rate * (step + 1) / warmup_steps
    return optax.join_schedules([warmup, main], [warmup_steps])


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    b1: float | int = 0.9,
    b2: float | int = 0.999,
    eps: float | int = 1e-8,
    momentum: float | int = 0.9,
    weight_decay: float | int = 0.0,
    clip_norm: float | int = 0.0,
    skip_norm: float | int = 0.0,
    warmup_steps: int = 0,
) -> optax.GradientTransformation:
    """Returns an optimizer by name; options that it does not have are ignored.

    Args:
      name: a key of `OPTIMIZERS`.
      schedule: step -> learning rate.
      b1: decay of the first moment, of the Adam family.
      b2: decay of the second moment, of the Adam family.
      eps: of the Adam family.
      momentum: of SGD (Nesterov) and Muon.
      weight_decay: decoupled for adamw and muon, L2 for sgd; on kernels only.
      clip_norm: larger gradients are scaled down to this global norm, 0 for never.
      skip_norm: steps with a larger global norm of the gradients are skipped, see `skip_large`; 0
        for never.
      warmup_steps: of the schedule, after which it is at its peak.
    """
    tx = OPTIMIZERS[name](
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        momentum=momentum,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
    )
    if clip_norm > 0:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return skip_large(tx, skip_norm) if skip_norm > 0 else tx


# --- Wrappers -------------------------------------------------------------------------------------


def keep_in_box(low: float | int, high: float | int) -> optax.GradientTransformation:
    """Returns a transformation that projects parameters to [low, high]; chained after an optimizer.

    It changes the updates such that applying them gives the projected parameters.
    """

    def update(updates, params):
        moved = jax.tree.map(jnp.add, params, updates)
        project = lambda p: optax.projections.projection_box(p, low, high)
        return optax.tree.sub(jax.tree.map(project, moved), params)

    return optax.stateless(update)


def skip_large(
    tx: optax.GradientTransformation, max_norm: float | int
) -> optax.GradientTransformation:
    """Wraps an optimizer to skip steps whose gradients are large (Child 2021).

    Gradients with a global norm above `max_norm` change neither parameters nor the state; a caller
    knows by `updates_done`.
    """
    tx = optax.with_extra_args_support(tx)

    def update(grads, state, params=None, **extra):
        small = optax.tree.norm(grads) <= max_norm
        updates, new_state = tx.update(grads, state, params, **extra)
        updates = jax.tree.map(lambda u: jnp.where(small, u, 0), updates)
        return updates, jax.tree.map(lambda a, b: jnp.where(small, a, b), new_state, state)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def updates_done(opt_state: Any) -> Int[Array, ""]:
    """Returns how many updates an optimizer has made, from its state: its schedule counts them."""
    return optax.tree.get_all_with_path(opt_state, "count")[0][1]
