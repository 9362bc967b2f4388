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

from genjax.data.resident import Resident
from genjax.data.transforms import Transform
from genjax.devices import gathered, mean_over_devices, num_devices, scan
from genjax.rng import Rngs, rows_of_batch
from genjax.train.guard import guard
from genjax.train.optimizers import updates_done
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
      skips_large: whether the optimizer leaves out updates whose gradients are large, see
        `genjax.train.optimizers.skip_large`.
      updates_per_step: (key in the optimizer's state, updates in each step) of each optimizer of a
        family with several; the first one's learning rate is logged.
    """

    update: Callable[[TrainState, Batch, Rngs], tuple[TrainState, Metrics]]
    transform: Transform
    schedule: Callable[[jax.Array], jax.Array | float]
    policy: str = "raise"
    skips_large: bool = False
    updates_per_step: tuple[tuple[str, int], ...] = ()

    def __call__(
        self, state: TrainState, batch: Batch, dataset: Resident | None = None
    ) -> tuple[TrainState, tuple[Metrics, jax.Array]]:
        """Advances the state by one step.

        Args:
          state: before the step.
          batch: {"image": uint8 [B, H, W, C], "label", "index", "slot": int32 [B]}, and "stop",
            bool [B], where several processes ask each other whether to stop.
          dataset: all examples, on the device; the batch then has no images.
        """
        batch = dict(batch)
        if dataset is not None:
            batch = {**dataset.take(batch["index"]), **batch}
        stop = batch.pop("stop", jnp.zeros((), bool)).any()
        new_state, metrics = self.advance(state, batch)
        return guard(state, new_state, metrics, stop, self.policy)

    def advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Advances the state without checking what comes out."""
        rngs = Rngs(state.rng, state.step, batch["slot"])
        with rows_of_batch(rngs.index, num_devices() * len(rngs.index)):
            new_state, metrics = self.update(state, self.transform(batch, rngs, train=True), rngs)
        updates = state.updates
        if self.skips_large:
            new_state, left_out = self._without_left_out(state, new_state)
            metrics = {**metrics, **left_out, "skipped_steps": new_state.skipped}
            if self.updates_per_step:
                updates = updates_done(state.opt_state[self.updates_per_step[0][0]])
        return new_state, {**metrics, "lr": jnp.asarray(self.schedule(updates))}

    def _without_left_out(
        self, state: TrainState, new_state: TrainState
    ) -> tuple[TrainState, Metrics]:
        """Freezes what belongs to updates that the optimizer left out, and counts the step.

        With one optimizer that is all of the state, as for a step that is not finite; with several,
        each network's moving average.

        Returns:
          (state, updates left out in this step by metric, where there are several optimizers).
        """
        keep = lambda out, new, old: jax.tree.map(
            lambda a, b: b if a is b else jnp.where(out, b, a), new, old
        )
        if not self.updates_per_step:
            out = updates_done(new_state.opt_state) == updates_done(state.opt_state)
            same = state.replace(step=state.step + 1, skipped=state.skipped + 1)
            return keep(out, new_state, same), {}
        missing, ema_params = {}, dict(new_state.ema_params)
        for name, count in self.updates_per_step:
            before, after = (updates_done(s.opt_state[name]) for s in (state, new_state))
            missing[name] = count - (after - before)
            if name in ema_params:
                ema_params[name] = keep(missing[name] > 0, ema_params[name], state.ema_params[name])
        skipped = state.skipped + (sum(missing.values()) > 0)
        new_state = new_state.replace(ema_params=ema_params, skipped=skipped)
        return new_state, {f"skipped_updates_{name}": n for name, n in missing.items()}


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
            ema_params = self.ema.update(state.ema_params, params, state.updates)
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema_params=ema_params,
        )
        return new_state, {**metrics, "grad_norm": optax.tree.norm(grads), "grads": grads}

    def _gradients(self, state, model_state, batch, rngs):
        loss_of = lambda params, *args: self.loss(gathered(params), *args)
        grad_fn = jax.value_and_grad(loss_of, has_aux=True)
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
