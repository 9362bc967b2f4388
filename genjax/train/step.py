"""The train step that every family shares: from a batch of uint8 images to the next state.

`TrainStep` is what is compiled: it prepares the images, lets the family update the state, and
checks that all numbers are finite. `LossUpdate` is the update of a family that has one loss;
families that play a game bring their own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.data.transforms import Transform
from genjax.devices import mean_over_devices, num_devices, scan
from genjax.rng import Rngs, rows_of_batch
from genjax.train.guard import guard
from genjax.train.state import Ema, TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One step of training: (state, batch[, dataset]) -> (state, (metrics, health)).

    Attributes:
      update: (state, batch, rngs) -> (state, metrics); metrics are scalars by name, and "grads".
      transform: prepares the images of a batch.
      schedule: step -> learning rate, for the metrics.
      policy: what to do about numbers that are not finite, see `genjax.train.guard`.
    """

    update: Callable[[TrainState, Batch, Rngs], tuple[TrainState, Metrics]]
    transform: Transform
    schedule: Callable[[jax.Array], jax.Array | float]
    policy: str = "raise"

    def __call__(
        self, state: TrainState, batch: Batch, dataset: Batch | None = None
    ) -> tuple[TrainState, tuple[Metrics, jax.Array]]:
        """Advances the state by one step.

        Args:
          state: before the step.
          batch: {"image": uint8 [B, H, W, C], "label", "index", "slot": int32 [B]}, and "stop",
            bool [B], where several processes ask each other whether to stop.
          dataset: {"image", "label"} of all examples, on the device; the batch then has no images.
        """
        batch = dict(batch)
        if dataset is not None:
            batch = {**jax.tree.map(lambda x: x[batch["index"]], dataset), **batch}
        stop = batch.pop("stop", jnp.zeros((), bool)).any()
        new_state, metrics = self.advance(state, batch)
        return guard(state, new_state, metrics, stop, self.policy)

    def advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Advances the state without checking what comes out."""
        rngs = Rngs(state.rng, state.step, batch["slot"])
        with rows_of_batch(rngs.index, num_devices() * len(rngs.index)):
            new_state, metrics = self.update(state, self.transform(batch, rngs, train=True), rngs)
        lr = jnp.asarray(self.schedule(state.step - state.skipped))
        return new_state, {**metrics, "lr": lr}


@dataclasses.dataclass(frozen=True)
class LossUpdate:
    """The update of a family with one loss: gradient, optimizer, moving average.

    Attributes:
      loss: (params, model_state, batch, rngs, train) -> (loss, (metrics, model_state)); the loss
        is a mean over the batch.
      tx: the optimizer.
      ema: the moving average.
      accumulate_steps: the batch is worked through in this many parts of equal size, to save
        memory; gradients are averaged, so the step is the same up to rounding, given that the loss
        is a mean over examples and the model state is not that of a batch (`Family.whole_batch`).
    """

    loss: Callable
    tx: optax.GradientTransformation
    ema: Ema
    accumulate_steps: int = 1

    def __call__(self, state: TrainState, batch: Batch, rngs: Rngs) -> tuple[TrainState, Metrics]:
        """Returns the next state, and scalar metrics with "grads", the gradients."""
        if self.accumulate_steps == 1:
            grads, metrics, model_state = self._gradients(state, state.model_state, batch, rngs)
        else:
            grads, metrics, model_state = self._accumulated(state, batch, rngs)
        grads, metrics = mean_over_devices((grads, metrics))
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = {}
        if self.ema.enabled:
            ema_params = self.ema.update(state.ema_params, params, state.step)
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema_params=ema_params,
        )
        return new_state, {**metrics, "grad_norm": optax.tree.norm(grads), "grads": grads}

    def _gradients(self, state, model_state, batch, rngs):
        grad_fn = jax.value_and_grad(self.loss, has_aux=True)
        (loss, (metrics, model_state)), grads = grad_fn(
            state.params, model_state, batch, rngs, True
        )
        return grads, {"loss": loss, **metrics}, model_state

    def _accumulated(self, state, batch, rngs):
        """The same over the parts of a batch, one after another."""

        def part(model_state, batch):
            own = dataclasses.replace(rngs, index=batch["slot"])
            with rows_of_batch(own.index, num_devices() * len(rngs.index)):
                grads, metrics, model_state = self._gradients(state, model_state, batch, own)
            return model_state, (grads, metrics)

        parts = split_batch(batch, self.accumulate_steps)
        model_state, stacked = scan(part, state.model_state, parts)
        grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
        return grads, metrics, model_state


def split_batch(batch: Any, parts: int) -> Any:
    """Reshapes [B, ...] to [parts, B / parts, ...], strided: each device holds its share of each
    part."""

    def split(x):
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)
