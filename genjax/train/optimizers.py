"""Optimizers and learning-rate schedules by name; all of the arithmetic is optax's."""

import jax
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


OPTIMIZERS = {
    "adam": lambda lr, *, b1, b2, eps, **_: optax.adam(lr, b1, b2, eps),
    "adamw": lambda lr, *, b1, b2, eps, weight_decay, **_: optax.adamw(
        lr, b1, b2, eps, weight_decay=weight_decay, mask=_kernels
    ),
    "adamax": lambda lr, *, b1, b2, eps, **_: optax.adamax(lr, b1, b2, eps),
    "muon": _muon,
    "sgd": lambda lr, *, momentum, weight_decay, **_: optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(lr, momentum=momentum or None, nesterov=momentum > 0),
    ),
}

# Those of them that know weight decay.
DECAYING = ("adamw", "muon", "sgd")

# Shapes of the learning rate after warm-up, over the remaining steps.
SCHEDULES = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, max(steps, 1)),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, max(steps, 1)),
}


def _kernels(params):
    """Weight decay is for matrices and kernels, not for biases and scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_schedule(learning_rate, schedule="constant", warmup_steps=0, num_train_steps=1):
    """step -> learning rate: linear from 0 over `warmup_steps`, then `SCHEDULES[schedule]`."""
    main = SCHEDULES[schedule](learning_rate, num_train_steps - warmup_steps)
    if warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


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
):
    """An optax transformation.

    Args:
      name: a key of `OPTIMIZERS`; each takes from the rest what it has a use for.
      schedule: step -> learning rate.
      b1, b2, eps: of the Adam family.
      momentum: of SGD (Nesterov) and Muon.
      weight_decay: decoupled for adamw and muon, L2 for sgd; on kernels only.
      clip_norm: gradients are scaled down to this global norm, 0 for never.
    """
    tx = OPTIMIZERS[name](
        schedule, b1=b1, b2=b2, eps=eps, momentum=momentum, weight_decay=weight_decay
    )
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm > 0 else tx
