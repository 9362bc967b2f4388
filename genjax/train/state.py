"""The whole of a run's state in one pytree, and the step that advances it."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genjax.rng import Rngs
from genjax.train.parallel import mean_over_devices, scan


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes, and nothing static.

    Attributes:
      step: int32 scalar, training steps done.
      params: the parameters; for a game {"generator": ..., "discriminator": ...}.
      model_state: what a network carries besides parameters (batch statistics), {} if nothing.
      opt_state: the optimizer's state.
      ema_params: exponential moving average of params or of a part of them, {} if there is none.
      rng: the root key; never advanced.
      skipped: int32 scalar, steps whose update was left out because it was not finite.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema_params: Any
    rng: jax.Array
    skipped: jax.Array

    @property
    def eval_params(self):
        """The parameters to evaluate and sample with: the average where there is one."""
        if not jax.tree.leaves(self.ema_params):
            return self.params
        if len(self.ema_params) == len(self.params):
            return self.ema_params
        return {**self.params, **self.ema_params}


@dataclasses.dataclass(frozen=True)
class Ema:
    """Exponential moving average of the parameters.

    Attributes:
      decay: per step, 0 for no average.
      half_life_images: if positive, the decay is 0.5 ** (batch_size / half_life_images) instead
        (Karras et al. 2022).
      batch_size: global batch size.
      warmup: early averages are shorter, min(decay, (1 + t) / (10 + t)), so that the initial
        parameters are forgotten.
    """

    decay: float = 0.0
    half_life_images: float = 0.0
    batch_size: int = 1
    warmup: bool = True

    @property
    def enabled(self):
        return self.decay > 0 or self.half_life_images > 0

    def update(self, ema_params, params, step):
        """The average after `params` of step `step` (int32 scalar, from 0)."""
        decay = self.decay
        if self.half_life_images > 0:
            decay = 0.5 ** (self.batch_size / self.half_life_images)
        if self.warmup:
            decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
        return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema_params, params)


def init_state(seed, init, init_opt, ema, averaged=lambda params: params):
    """A state at step 0.

    Args:
      seed: int.
      init: key -> (params, model_state).
      init_opt: params -> optimizer state.
      ema: an `Ema`.
      averaged: params -> those of them that have an average, a dict.
    """
    root = jax.random.key(seed)
    params, model_state = init(Rngs(root, 0, jnp.zeros(1, jnp.int32)).layer("init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=init_opt(params),
        # A copy: parameters and average must not share a buffer, the state is donated.
        ema_params=jax.tree.map(jnp.copy, averaged(params)) if ema.enabled else {},
        rng=root,
        skipped=jnp.zeros((), jnp.int32),
    )


def make_train_step(loss_fn, tx, ema, *, accumulate_steps=1, axis_name=None):
    """The train step of every family with one loss: `(state, batch) -> (state, metrics)`.

    The metrics are scalars by name, and "grads", the gradients, for `genjax.train.guard` to name
    the leaf that is not finite.

    Args:
      loss_fn: (params, model_state, batch, rngs, train) -> (loss, (metrics, model_state)); the
        loss is a mean over the batch.
      tx: optax gradient transformation.
      ema: an `Ema`.
      accumulate_steps: the batch is worked through in this many parts of equal size, to save
        memory; gradients are averaged, so the step is the same up to rounding.
      axis_name: of the devices under pmap; None under jit, where the batch is global.
    """

    def gradients(params, model_state, batch, state):
        rngs = Rngs(state.rng, state.step, batch["slot"])
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (metrics, model_state)), grads = grad_fn(params, model_state, batch, rngs, True)
        return grads, {"loss": loss, **metrics}, model_state

    def train_step(state, batch):
        if accumulate_steps == 1:
            grads, metrics, model_state = gradients(state.params, state.model_state, batch, state)
        else:
            parts = split_batch(batch, accumulate_steps)

            def part(model_state, batch):
                grads, metrics, model_state = gradients(state.params, model_state, batch, state)
                return model_state, (grads, metrics)

            model_state, stacked = scan(part, state.model_state, parts)
            grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
        grads, metrics = mean_over_devices((grads, metrics), axis_name)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "grads": grads}
        ema_params = ema.update(state.ema_params, params, state.step) if ema.enabled else {}
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema_params=ema_params,
        )
        return new_state, metrics

    return train_step


def split_batch(batch, parts):
    """[B, ...] -> [parts, B / parts, ...]; strided, so each device holds its share of each part."""

    def split(x):
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)
