"""Optimizers and learning-rate schedules by name; the arithmetic is optax's, but for `airbench`."""

import jax
import jax.numpy as jnp
import optax


def _muon(learning_rate, *, b1, b2, eps, weight_decay, momentum):
    """Muon on every matrix and kernel, Adam on vectors; kernels as matrices [fan in, out]."""

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


def orthogonalize(matrix, steps=3):
    """The orthogonal matrix next to `matrix` [M, N], roughly, by Newton-Schulz iterations.

    Their quintic (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) brings singular
    values between 0 and 1 near 1, to within about a third.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (jnp.linalg.norm(matrix) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def _renormalized_muon(learning_rate, momentum):
    """Muon for kernels [kh, kw, in, out], each first brought back to the norm sqrt(out)."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), optax.TraceState(zeros)

    def update(grads, state, params):
        schedule, trace = state
        momenta = jax.tree.map(lambda m, g: momentum * m + g, trace.trace, grads)
        lr = learning_rate(schedule.count)

        def change(p, g, m):
            rows = (g + momentum * m).reshape(-1, p.shape[-1])  # Nesterov
            scaled = p * jnp.sqrt(p.shape[-1]) / jnp.linalg.norm(p)
            return scaled - lr * orthogonalize(rows).reshape(p.shape) - p

        updates = jax.tree.map(change, params, grads, momenta)
        return updates, (optax.ScaleByScheduleState(schedule.count + 1), optax.TraceState(momenta))

    return optax.GradientTransformation(init, update)


# Learning rates of the speed run's other parameters, over that of its kernels, 0.24: they are 0.053
# and 0.67 there, for a loss summed over a batch of 2,000.
_AIRBENCH_BIASES = 0.053 * 2000 / 0.24
_AIRBENCH_HEAD = 0.67 * 2000 / 0.24
_AIRBENCH_WHITENING_SHARE = 3 / 8  # of the training, in which the first bias learns


def _airbench(schedule, *, momentum, weight_decay):
    """The optimizer of `genjax.models.airbench`: Muon on kernels, SGD on biases and the head.

    `schedule` falls to 0 linearly; `momentum` is that of Muon; `weight_decay` is a share of the
    parameter a step, at the full learning rate.
    """
    peak = schedule(0)

    def sgd(factor, share=1.0):
        def learning_rate(step):
            left = schedule(step) / peak
            return factor * peak * jnp.maximum(0.0, 1 - (1 - left) / share)

        return optax.chain(
            optax.add_decayed_weights(weight_decay / (factor * peak)),
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


_LBFGS_MEMORY = 10  # steps whose gradients its model of the curvature is made from

OPTIMIZERS = {
    "adam": lambda lr, *, b1, b2, eps, **_: optax.adam(lr, b1, b2, eps),
    "adamw": lambda lr, *, b1, b2, eps, weight_decay, **_: optax.adamw(
        lr, b1, b2, eps, weight_decay=weight_decay, mask=_kernels
    ),
    "adamax": lambda lr, *, b1, b2, eps, **_: optax.adamax(lr, b1, b2, eps),
    "lbfgs": lambda lr, **_: optax.lbfgs(None, memory_size=_LBFGS_MEMORY),
    "muon": _muon,
    "airbench": lambda lr, *, momentum, weight_decay, **_: _airbench(
        lr, momentum=momentum, weight_decay=weight_decay
    ),
    "sgd": lambda lr, *, momentum, weight_decay, **_: optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(lr, momentum=momentum or None, nesterov=momentum > 0),
    ),
}

# Those that look for the length of a step by trying: their update wants the loss as a function too,
# which only a family with a step of its own gives.
LINE_SEARCHING = ("lbfgs",)

# Those of them that know weight decay.
DECAYING = ("adamw", "airbench", "muon", "sgd")

# Shapes of the learning rate after warm-up, over the remaining steps.
SCHEDULES = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, max(steps, 1)),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, max(steps, 1)),
}


def _kernels(params):
    """Weight decay is for matrices and kernels, not for biases and scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def keep_in_box(low, high):
    """Cuts updates off where they would lead out of [low, high]; goes behind an optimizer."""

    def update(updates, state, params):
        new = jax.tree.map(lambda p, u: jnp.clip(p + u, low, high) - p, params, updates)
        return new, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_schedule(learning_rate, schedule="constant", warmup_steps=0, num_train_steps=1):
    """step -> learning rate: linear from 0 over `warmup_steps`, then `SCHEDULES[schedule]`."""
    main = SCHEDULES[schedule](learning_rate, num_train_steps - warmup_steps)
    if warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def skip_large(tx, max_norm):
    """`tx`, but gradients whose global norm is above `max_norm` change nothing (Child 2021)."""

    def update(grads, state, params=None):
        small = optax.tree.norm(grads) <= max_norm
        updates, new_state = tx.update(grads, state, params)
        updates = jax.tree.map(lambda u: jnp.where(small, u, 0), updates)
        return updates, jax.tree.map(lambda a, b: jnp.where(small, a, b), new_state, state)

    return optax.GradientTransformation(tx.init, update)


def make_optimizer(
    name,
    schedule,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    momentum=0.9,
    weight_decay=0.0,
    clip_norm=0.0,
    skip_norm=0.0,
):
    """An optax transformation.

    Args:
      name: a key of `OPTIMIZERS`; each takes from the rest what it has a use for.
      schedule: step -> learning rate.
      b1, b2, eps: of the Adam family.
      momentum: of SGD (Nesterov) and Muon.
      weight_decay: decoupled for adamw and muon, L2 for sgd; on kernels only.
      clip_norm: gradients are scaled down to this global norm, 0 for never.
      skip_norm: those above this global norm are left out, see `skip_large`; 0 for never.
    """
    tx = OPTIMIZERS[name](
        schedule, b1=b1, b2=b2, eps=eps, momentum=momentum, weight_decay=weight_decay
    )
    if clip_norm > 0:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return skip_large(tx, skip_norm) if skip_norm > 0 else tx
