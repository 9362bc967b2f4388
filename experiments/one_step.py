"""Images in one step: mean flows (Geng et al. 2025) and consistency training (Song et al. 2023).

  meanflow      u_net(x_t, r, t) is to be v - (t - r) du_net/dt, the velocity's average from r to t
  consistency   f_net(x_s, s) is to be f_net(x_r, r), r a little less noisy, on the same noise

Networks, classes and pictures are those of `experiments.diffusion`.
"""

import functools
import math

import jax.numpy as jnp

from experiments.config import choose, require
from experiments.denoisers import (
    check_shared,
    label_dropper,
    make_network,
    make_process,
    no_labels,
    to_unit,
)
from experiments.diffusion import add_fields as add_diffusion_fields
from experiments.pretrained import export, pretrained
from experiments.run import Experiment
from genjax import rng
from genjax.diffusion import one_step
from genjax.diffusion.parameterization import Parameterization
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.weightings import TIME_SAMPLINGS

# Times are told to a mean flow's network times this: its derivative in time is trained on, and
# that of a fast sine would swamp the rest.
TIME_SCALE = 10.0


def add_fields(config):
    """The fields of this family beside those that all have, at their defaults."""
    add_diffusion_fields(config)
    config.experiment = "one_step"
    config.process = {"name": "flow"}
    config.objective = {
        "name": "meanflow",
        "sigma_data": 0.5,
        "time_mean": -0.4,
        "time_std": 1.0,
        "label_dropout": 0.0,
        "flow_ratio": 0.75,  # meanflow: how often r = t
        "power": 1.0,  # meanflow: of the adaptive weight
        "stages": 8,  # consistency: how often r comes closer to s
        "huber": 0.0,  # consistency: c of the distance
    }
    config.sample.num_steps = 1
    config.sample.schedule = "linear"


def build(config, image_shape, class_names, axis_name):
    """The model of a config, as the shared trainer takes it."""
    del axis_name  # nothing here looks at the batch as a whole
    objective = config.objective
    make = choose(OBJECTIVES, objective.name, "objective.name")
    require(config.sample.num_steps >= 1, "sample.num_steps", config.sample.num_steps, "at least 1")
    require(objective.time_std > 0, "objective.time_std", objective.time_std, "above 0")
    scale = config.sample.guidance
    require(scale == 1, "sample.guidance", scale, "1: guidance takes many steps")
    for key in ("task", "weaker"):
        default = {"task": "draw", "weaker": ""}[key]
        value = config.sample[key]
        require(value == default, f"sample.{key}", value, f"{default!r} with a one-step model")
    process = make_process(config)
    num_classes = check_shared(config, class_names)
    network = make_network(config, num_classes)
    dropped = label_dropper(config, num_classes)
    losses, draw, num_times = make(config, process, image_shape)

    def init(key):
        c = jnp.zeros((1, num_times))
        x = jnp.zeros((1, *image_shape))
        return network.init(key, x, c, jnp.zeros(1, jnp.int32))["params"], {}

    def applied(params, labels, train=False, dropout=None):
        rngs = {"dropout": dropout} if train else {}
        return lambda x, c: network.apply({"params": params}, x, c, labels, train, rngs=rngs)

    def loss_fn(params, model_state, batch, rngs, train):
        labels = dropped(batch["label"], rngs("label")) if num_classes else batch["label"]
        net = applied(params, labels, train, rngs.layer("dropout"))
        terms = losses(net, batch["image"], rngs, train)
        terms = {name: jnp.mean(term) for name, term in terms.items()}
        return terms.pop("loss"), (terms, model_state)

    def eval_fn(params, model_state, batch, rngs):
        return losses(applied(params, batch["label"]), batch["image"], rngs, False)

    def sample(params, model_state, keys, labels=None):
        labels = no_labels(keys) if labels is None else labels
        return to_unit(draw(applied(params, labels), keys))

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        sample=sample,
        sample_classes=num_classes > 0,
        pretrained=pretrained(config, init, network, image_shape),
        export=functools.partial(export, config, network),
    )


def meanflow(config, process, image_shape):
    """(network, images, rngs, train) -> losses; (network, keys) -> images; times it is told."""
    objective = config.objective
    require(config.process.name == "flow", "process.name", config.process.name, "'flow'")
    ratio = objective.flow_ratio
    require(0 <= ratio <= 1, "objective.flow_ratio", ratio, "in [0, 1]")

    def average_velocity(network):
        return lambda x, r, t: network(x, TIME_SCALE * jnp.stack([t, t - r], axis=-1))

    def losses(network, x0, rngs, train):
        r, t = one_step.meanflow_times(rngs("time"), objective.time_mean, objective.time_std, ratio)
        eps = rng.normal(rngs("noise"), image_shape)
        u = average_velocity(network)
        loss, error = one_step.meanflow_loss(u, x0, eps, r, t, objective.power)
        return {"loss": loss, "mse": error}

    def draw(network, keys):
        x = rng.normal(keys, image_shape)
        return one_step.meanflow_sample(average_velocity(network), x, config.sample.num_steps)

    return losses, draw, 2


def consistency(config, process, image_shape):
    """Likewise."""
    objective = config.objective
    stages, huber = objective.stages, objective.huber
    require(config.process.name == "edm", "process.name", config.process.name, "'edm'")
    require(stages >= 1, "objective.stages", stages, "at least 1")
    require(0 <= huber < math.inf, "objective.huber", huber, "at least 0 and finite")
    par = Parameterization(process, "F", objective.sigma_data)
    schedule = choose(SCHEDULES, config.sample.schedule, "sample.schedule")

    def losses(network, x0, rngs, train):
        mean, std = objective.time_mean, objective.time_std
        s = TIME_SAMPLINGS["log_normal"](process, rngs("time"), mean, std)
        done = rngs.step / config.num_train_steps if train else 1.0  # evaluated at the hardest
        stage = jnp.minimum(jnp.floor(done * stages), stages - 1)
        r = one_step.consistency_earlier(s, stage)
        eps = rng.normal(rngs("noise"), image_shape)
        denoise = functools.partial(par.denoise, network)
        return {"loss": one_step.consistency_loss(denoise, x0, eps, s, r, huber)}

    def draw(network, keys):
        times = schedule(process, config.sample.num_steps + 1)[:-1]
        denoise = functools.partial(par.denoise, network)
        return one_step.consistency_sample(denoise, process, times, keys, image_shape)

    return losses, draw, 1


# config.objective.name -> (config, process, image shape) -> (losses, draw, number of times).
OBJECTIVES = {"meanflow": meanflow, "consistency": consistency}
