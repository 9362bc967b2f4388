"""Images in one step: mean flows (Geng et al. 2025) and consistency training (Song et al. 2023).

  MeanFlow             u_net(x_t, r, t) is trained to be v - (t - r) du_net/dt, the average of the
                       velocity from r to t
  ConsistencyTraining  f_net(x_s, s) is trained to be f_net(x_r, r), with r a little less noisy and
                       the same noise

Networks, classes and config fields are those of `experiments.diffusion.diffusion`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.diffusion import denoisers, diffusion
from experiments.diffusion.denoisers import (
    LABEL_DROPOUT,
    DenoisingFamily,
    make_network,
    make_process,
    no_labels,
    to_unit,
)
from experiments.diffusion.pretrained import initial_loader
from genjax import rng
from genjax.diffusion import one_step
from genjax.diffusion.parameterization import Network, Parameterization
from genjax.diffusion.process import Process, edm
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.weightings import TIME_SAMPLINGS
from genjax.rng import Rngs
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Images, Metrics
from genjax.runner.fields import Choice, field, one_of, other_than, require, unused
from genjax.typing import Array, Float, Int, Key, ModelState, Params

# The network of a mean flow gets times multiplied by this: its derivative in time is trained on,
# and that of a fast sine would dominate the loss.
TIME_SCALE = 10.0

# Of consistency training. From stage to stage r comes twice as close to s: in the last one they
# still differ by 16 of the steps that float32 has there.
MAX_STAGES = 20

# config.objective.name -> the only process it is defined on.
OBJECTIVES = {"meanflow": "flow", "consistency": "edm"}

MEANFLOW = one_of("objective.name", "meanflow")
CONSISTENCY = one_of("objective.name", "consistency")

PROCESSES = Choice(
    {
        "flow": unused(denoisers.PROCESSES.groups["flow"]),  # its times are those of [0, 1]
        "edm": denoisers.PROCESSES.groups["edm"],
    }
)

FIELDS = {
    **diffusion.FIELDS,
    "process": PROCESSES,
    "objective": {
        "name": field("meanflow", one_of=OBJECTIVES),
        "sigma_data": field(
            0.5, "standard deviation of the pixels", above=0, only_with=CONSISTENCY
        ),
        "time_mean": field(-0.4, "of logit(t) (meanflow) or log(sigma) (consistency)"),
        "time_std": field(1.0, above=0),
        "label_dropout": LABEL_DROPOUT,
        "flow_ratio": field(
            0.75, "meanflow: how often r = t", at_least=0, at_most=1, only_with=MEANFLOW
        ),
        "power": field(1.0, "meanflow: of the adaptive weight", only_with=MEANFLOW),
        "stages": field(
            8,
            "consistency: how often r comes closer to s",
            at_least=1,
            at_most=MAX_STAGES,
            only_with=CONSISTENCY,
        ),
        "huber": field(0.0, "consistency: c of the distance", at_least=0, only_with=CONSISTENCY),
    },
    "sample": {
        **unused(diffusion.FIELDS["sample"]),
        "num_steps": field(1, at_least=1),
        "schedule": field(
            "linear",
            "consistency: of the sampler's times",
            one_of=SCHEDULES,
            only_with=(CONSISTENCY, other_than("sample.num_steps", 1)),
        ),
    },
    "eval": unused(diffusion.FIELDS["eval"]),
}

smoke = denoisers.smoke


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("one_step", FIELDS)


def build(
    config: ConfigDict, image_shape: tuple[int, int, int], class_names: tuple[str, ...]
) -> "OneStep":
    """Builds the mean flow, or the consistency training, of a config."""
    denoisers.check_shared(config, class_names)
    _check(config)
    denoisers.check_attention(config, image_shape)
    objective = config.objective
    shared = {
        "network": make_network(config, class_names),
        "image_shape": tuple(image_shape),
        "label_dropout": objective.label_dropout,
        "metadata": {"config": config.to_json()},
        "time_mean": objective.time_mean,
        "time_std": objective.time_std,
        "num_steps": config.sample.num_steps,
    }
    if objective.name == "meanflow":
        family = MeanFlow(**shared, flow_ratio=objective.flow_ratio, power=objective.power)
    else:
        family = ConsistencyTraining(
            **shared,
            process=make_process(config),
            sigma_data=objective.sigma_data,
            stages=objective.stages,
            num_train_steps=config.num_train_steps,
            huber=objective.huber,
            schedule=config.sample.schedule,
        )
    return dataclasses.replace(family, initial_params=initial_loader(config, family))


def _check(config: ConfigDict) -> None:
    """Raises a UserError for fields that do not go together."""
    name, process = OBJECTIVES[config.objective.name], config.process.name
    require(process == name, "process.name", process, f"'{name}'")


@dataclasses.dataclass(frozen=True, eq=False)
class OneStep(DenoisingFamily):
    """The shared part of both families.

    Attributes:
      network, image_shape, label_dropout, initial_params, metadata: see `DenoisingFamily`.
      num_steps: evaluations of the network when sampling.
    """

    num_steps: int = 1

    def losses(
        self, network: Network, x0: Float[Array, "b h w c"], rngs: Rngs, train: bool
    ) -> dict[str, Float[Array, " b"]]:
        """Returns the "loss" of each image, and other metrics of it."""
        raise NotImplementedError

    def generate(self, network: Network, keys: Key[Array, " b"]) -> Float[Array, "b h w c"]:
        """Returns images in [-1, 1], and beyond that by the network's errors."""
        raise NotImplementedError

    def loss(
        self,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        rngs: Rngs,
        train: bool = True,
    ) -> tuple[Float[Array, ""], tuple[Metrics, ModelState]]:
        network = self.applied_in_training(params, batch, rngs, train)
        terms = self.losses(network, batch["image"], rngs, train)
        metrics = {name: jnp.mean(term) for name, term in terms.items()}
        return metrics.pop("loss"), (metrics, model_state)

    def evaluate(
        self, params: Params, model_state: ModelState, batch: Batch, rngs: Rngs
    ) -> dict[str, Array]:
        network = self.applied(params, batch["label"])
        return self.losses(network, batch["image"], rngs, False)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        keys: Key[Array, " b"],
        labels: Int[Array, " b"] | None = None,
    ) -> Images:
        labels = no_labels(keys) if labels is None else labels
        return to_unit(self.generate(self.applied(params, labels), keys))


@dataclasses.dataclass(frozen=True, eq=False)
class MeanFlow(OneStep):
    """A mean flow on the straight path x_t = (1 - t) x_0 + t eps (Geng et al. 2025).

    Attributes:
      network, image_shape, num_steps, ...: see `OneStep`.
      time_mean, time_std: of the logit of r and t in training.
      flow_ratio: how often r = t, which is plain flow matching.
      power: p of the adaptive weight, see `genjax.diffusion.one_step.meanflow_loss`.
    """

    time_mean: float | int = -0.4
    time_std: float | int = 1.0
    flow_ratio: float | int = 0.75
    power: float | int = 1.0

    num_times: ClassVar[int] = 2

    @staticmethod
    def average_velocity(network: Network) -> Callable[[Array, Array, Array], Array]:
        """Returns u(x, r, t) of a network, which gets t and t - r."""
        return lambda x, r, t: network(x, TIME_SCALE * jnp.stack([t, t - r], axis=-1))

    def losses(self, network, x0, rngs, train):
        r, t = one_step.meanflow_times(rngs("time"), self.time_mean, self.time_std, self.flow_ratio)
        eps = rng.normal(rngs("noise"), self.image_shape)
        u = self.average_velocity(network)
        loss, error = one_step.meanflow_loss(u, x0, eps, r, t, self.power)
        return {"loss": loss, "mse": error}

    def generate(self, network, keys):
        x = rng.normal(keys, self.image_shape)
        return one_step.meanflow_sample(self.average_velocity(network), x, self.num_steps)


@dataclasses.dataclass(frozen=True, eq=False)
class ConsistencyTraining(OneStep):
    """Consistency training, easy version (Geng et al. 2024), from scratch or from diffusion.

    Attributes:
      network, image_shape, num_steps, ...: see `OneStep`.
      process: with alpha = 1 and sigma = t.
      sigma_data: standard deviation of the pixels.
      time_mean, time_std: of log(s) in training.
      stages: how often r comes closer to s in the course of training.
      num_train_steps: how long training takes.
      huber: c of the pseudo-Huber distance; 0: the plain norm.
      schedule: of the times when sampling in several steps.
    """

    process: Process = edm()
    sigma_data: float | int = 0.5
    time_mean: float | int = -1.1
    time_std: float | int = 2.0
    stages: int = 8
    num_train_steps: int = 20_000
    huber: float | int = 0.0
    schedule: str = "karras"

    def denoiser(self, network: Network) -> Callable[[Array, Array], Array]:
        """Returns f(x, s), the identity at s = 0."""
        parameterization = Parameterization(self.process, "F", self.sigma_data)
        return functools.partial(parameterization.denoise, network)

    def losses(self, network, x0, rngs, train):
        draw_times = TIME_SAMPLINGS["log_normal"]
        s = draw_times(self.process, rngs("time"), self.time_mean, self.time_std)
        done = rngs.step / self.num_train_steps if train else 1.0  # evaluated at the last stage
        stage = jnp.minimum(jnp.floor(done * self.stages), self.stages - 1)
        r = one_step.consistency_earlier(s, stage)
        eps = rng.normal(rngs("noise"), self.image_shape)
        denoise = self.denoiser(network)
        return {"loss": one_step.consistency_loss(denoise, x0, eps, s, r, self.huber)}

    def generate(self, network, keys):
        times = SCHEDULES[self.schedule](self.process, self.num_steps + 1)[:-1]
        denoise = self.denoiser(network)
        return one_step.consistency_sample(denoise, self.process, times, keys, self.image_shape)
