"""The state of a run in one pytree, and the moving average of its parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from genjax.rng import Rngs
from genjax.typing import Array, ModelState, Params


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes, and nothing static.

    Attributes:
      step: int32 scalar, training steps done.
      params: the parameters; for a game {"generator": ..., "discriminator": ...}.
      model_state: what a network carries besides parameters (batch statistics), {} if nothing.
      opt_state: the optimizer's state.
      ema_params: exponential moving average of params or of a part of them, {} if there is none.
      rng: the root key; never advanced.
      skipped: int32 scalar, steps of which an update was left out because it was not finite, or its
        gradient too large (config.optim.skip_norm).
    """

    # Any: JAX fills pytrees with shapes, shardings and placeholders, too.
    step: Any
    params: Any
    model_state: Any
    opt_state: Any
    ema_params: Any
    rng: Any
    skipped: Any

    @property
    def updates(self) -> Any:
        """Steps that changed the parameters, int32."""
        return self.step - self.skipped

    @property
    def eval_params(self) -> Params:
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
    def enabled(self) -> bool:
        return self.decay > 0 or self.half_life_images > 0

    def update(self, ema_params: Params, params: Params, step: Array | int) -> Params:
        """Returns the average after `params` of update number `step` (int32 scalar, from 0)."""
        decay = self.decay
        if self.half_life_images > 0:
            decay = 0.5 ** (self.batch_size / self.half_life_images)
        if self.warmup:
            decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
        return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema_params, params)


def init_state(
    seed: int,
    init: Callable[[Array], tuple[Params, ModelState]],
    init_optimizer: Callable[[Params], Any],
    ema: Ema,
    averaged: Callable[[Params], Params] = lambda params: params,
) -> TrainState:
    """Initialises a state at step 0.

    Args:
      seed: of the root key.
      init: key -> (params, model_state).
      init_optimizer: params -> optimizer state.
      ema: the moving average.
      averaged: params -> the part of them that has an average, a dictionary.
    """
    root = jax.random.key(seed)
    params, model_state = init(Rngs(root, 0, jnp.zeros(1, jnp.int32)).layer("init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=init_optimizer(params),
        # A copy: parameters and average must not share a buffer, the state is donated.
        ema_params=jax.tree.map(jnp.copy, averaged(params)) if ema.enabled else {},
        rng=root,
        skipped=jnp.zeros((), jnp.int32),
    )
