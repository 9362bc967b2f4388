"""The contract between a family of models and the runner.

A family is a module in `experiments/`, listed in `experiments.FAMILIES` under its name, the value
of `config.experiment`. The module (`FamilyModule`) declares config fields and builds one object
from a finished config (`Family`): a frozen dataclass that holds networks and settings, no arrays.
Every method is a pure function of parameters, model state, batch and keys, so each can be called
in a notebook or a test without a config, a run or a workdir.

What the methods are given:

  params         pytree of float32 arrays; for a GAN {"generator": ..., "discriminator": ...}
  model_state    what networks carry besides parameters (batch statistics, a codebook), or {}
  batch          {"image": [B, H, W, C] scaled as config.data.pixels says, "label": int32 [B],
                  "index": int32 [B], "slot": int32 [B]}; `slot` is the place in the global batch
  rngs           `genjax.rng.Rngs`: rngs("name") -> keys [B], a pure function of (seed, name, step)

Under pmap a method sees the share of one device; `genjax.devices` has the means and sums that a
method needs where it looks at the batch as a whole.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import optax
from ml_collections import ConfigDict

from genjax.errors import UserError
from genjax.rng import Rngs
from genjax.runner.fields import Fields
from genjax.runner.groups import complete_groups
from genjax.train.state import Ema, TrainState
from genjax.typing import AnyArray, Array, Float, Key, ModelState, Params, UInt8

Batch = dict[str, Array]
Metrics = dict[str, Array]
Images = Float[Array, "b h w c"]
Pictures = dict[str, UInt8[np.ndarray, "h w c"]]  # by name; each is saved as <name>.png


@runtime_checkable
class Family(Protocol):
    """What the runner asks of a family. Subclass it to inherit the defaults.

    A family defines `init`, `evaluate` and either `loss` or `train_step`; everything else has a
    default. Optional methods are None where a family does not have them.

    Attributes:
      num_init_examples: how many of the first training images `init` looks at.
      sample_shape: (H, W, C) of sampled images, where it is not the data's.
      sample_takes_labels: whether `sample` has to be given classes.
      whole_batch: what in `loss` is not a mean over examples, named for the user; gradients of
        parts of a batch cannot be averaged then. Model state that changes is found without it.
      line_search: whether `train_step` gives the optimizer the loss as a function.
      updates_per_step: (key in the optimizer's state, updates in each step) of each optimizer of a
        family with several, the one of config.optim.lr first; () for one optimizer.
      frozen: {entry of model_state that no step changes: a description with its SHA-256}.
        Checkpoints leave those out; `init` makes them again.
    """

    num_init_examples: int = 0
    sample_shape: tuple[int, int, int] | None = None
    sample_takes_labels: bool = False
    line_search: bool = False

    @property
    def whole_batch(self) -> str:
        return ""

    @property
    def updates_per_step(self) -> tuple[tuple[str, int], ...]:
        return ()

    @property
    def frozen(self) -> dict[str, str]:
        return {}

    # ---- Training ----

    def init(
        self, key: Key[Array, ""], images: UInt8[AnyArray, "n h w c"] | None = None
    ) -> tuple[Params, ModelState]:
        """Initialises parameters and model state.

        Args:
          key: of everything random.
          images: the first `num_init_examples` training images, None where that is 0.
        """
        ...

    def loss(
        self,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        rngs: Rngs,
        train: bool = True,
    ) -> tuple[Float[Array, ""], tuple[Metrics, ModelState]]:
        """Returns (loss, (metrics, new model state)); the loss is a mean over the batch."""
        ...

    # (state, batch, rngs, optimizer, ema) -> (new state, metrics), where one loss is not enough: a
    # game of two networks, a line search. Metrics are scalars by name and "grads", a pytree.
    train_step: (
        Callable[
            [TrainState, Batch, Rngs, optax.GradientTransformation, Ema],
            tuple[TrainState, dict[str, Any]],
        ]
        | None
    ) = None

    def optimizer(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns config.optim's optimizer as the family uses it, such as with bounds on parameters
        or a mask (`optax.masked`, `optax.partition`). `train_step` and `init_optimizer` get it.
        """
        return tx

    def init_optimizer(self, tx: optax.GradientTransformation, params: Params) -> Any:
        """Returns the optimizer's first state; of a family with several, that of each by name."""
        return tx.init(params)

    def averaged(self, params: Params) -> Params:
        """Returns the part of the parameters that `config.ema` averages, a dictionary."""
        return params

    # ---- Evaluation ----

    def evaluate(
        self, params: Params, model_state: ModelState, batch: Batch, rngs: Rngs
    ) -> dict[str, Array]:
        """Returns values of each example by name, [B, ...]."""
        ...

    def summarize(self, values: dict[str, np.ndarray]) -> dict[str, float]:
        """Turns values of all examples of a split, [N, ...], into the numbers of a report."""
        return {name: np.mean(value, dtype=np.float64) for name, value in values.items()}

    # {name: values [N, ...]} -> pictures of an evaluation, such as a confusion matrix.
    evaluation_figures: Callable[[dict[str, np.ndarray]], Pictures] | None = None

    # (params, model_state) -> model_state for evaluation and sampling, such as batch statistics of
    # averaged parameters; compiled, called once per evaluation.
    standing_statistics: Callable[[Params, ModelState], ModelState] | None = None

    # ---- Sampling and drawing ----

    # (params, model_state, keys [B][, labels int32 [B]]) -> images [B, H, W, C] in [0, 1]; image i
    # depends on keys[i] alone.
    sample: (
        Callable[..., Images]  # with labels only where `sample_takes_labels`
        | None
    ) = None

    # (params, model_state, batch) -> pictures; not compiled as a whole.
    figures: Callable[[Params, ModelState, Batch], Pictures] | None = None

    # (params, model_state, folder) -> None; writes what others use of a trained model.
    export: Callable[[Params, ModelState, Path], None] | None = None

    # ---- Parameters from elsewhere ----

    # () -> parameters as NumPy arrays that a run starts with instead of those of `init`.
    initial_params: Callable[[], Params] | None = None

    # () -> {name: pytree on the devices}, added to model_state for evaluation and sampling:
    # parameters of another run that guide this one.
    guide_params: Callable[[], dict[str, Any]] | None = None


@runtime_checkable
class FamilyModule(Protocol):
    """A module of `experiments/` as the runner finds it.

    Optional functions are looked up by name (`optional`):

      complete(config) -> config          fills in fields that follow from others; the fields of
                                          the names of a `Choice` are there already
      train(config, workdir, source, train_one) -> report
                                          trains in its own way, such as several runs of one config
      sample(config, workdir, source, step) -> None
                                          what --mode=sample does instead of drawing new images
      MODES: {name: (config, workdir, source, step) -> None}
                                          further values of --mode
    """

    FIELDS: Fields

    def default_config(self) -> ConfigDict:
        """Returns the config of a run of this family, every field at its default."""
        ...

    def smoke(self, config: ConfigDict) -> dict[str, Any]:
        """Returns {dotted key: value} that make a run of this config tiny."""
        ...

    def build(
        self, config: ConfigDict, image_shape: tuple[int, int, int], class_names: tuple[str, ...]
    ) -> Family:
        """Builds the family of a finished config.

        Raises:
          UserError: fields that do not go together; one line.
        """
        ...


def find_family(name: str) -> FamilyModule:
    """Returns the module of a family by its name in `experiments.FAMILIES`.

    The runner knows families by this table alone; no module of `genjax` imports `experiments`.

    Raises:
      UserError: there is no such family.
    """
    table = importlib.import_module("experiments").FAMILIES
    if name not in table:
        raise UserError(
            f"config.experiment='{name}' is an unknown experiment; known: {', '.join(table)}"
        )
    return importlib.import_module(table[name])


def optional(config: ConfigDict, name: str, default: Any = None) -> Any:
    """Returns an optional function of a config's family module, or `default`."""
    return getattr(find_family(config.experiment), name, default)


def completed(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a config with all fields that follow from others: those of the names of
    its groups (`complete_groups`), and those that its family derives.
    """
    config = complete_groups(config, find_family(config.experiment).FIELDS)
    return optional(config, "complete", lambda config: config)(config)
