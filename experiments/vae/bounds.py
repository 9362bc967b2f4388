"""What the VAEs share: fields and rules of the bound, likelihoods, bits per dimension."""

from ml_collections import ConfigDict

from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_mass
from genjax.objectives.elbo import KL_SCHEDULES
from genjax.objectives.likelihoods import LIKELIHOODS, Likelihood
from genjax.runner.fields import field, is_set, other_than, require

KL_FIELDS = {
    "beta": field(1.0, "weight of the KL", at_least=0),
    "kl_schedule": field(
        "constant",
        "of that weight, over kl_steps",
        one_of=KL_SCHEDULES,
        only_with=is_set("objective.beta"),
    ),
    "kl_steps": field(
        0,
        "steps to full weight (linear), or of a cycle (cyclic)",
        at_least=0,
        only_with=other_than("objective.kl_schedule", "constant"),
    ),
}
EVALUATION_FIELDS = {
    "importance_samples": field(
        0, "z for each image, for eval/nll_nats_iw<k>; 0: without", at_least=0
    ),
}


def check_kl(objective: ConfigDict) -> None:
    """Raises a UserError for a schedule without steps."""
    name, steps = objective.kl_schedule, objective.kl_steps
    fits = name == "constant" or steps >= 1
    what = f"at least 1 with config.objective.kl_schedule={name}"
    require(fits, "objective.kl_steps", steps, what)


def find_likelihood(config: ConfigDict) -> Likelihood:
    """Returns the `Likelihood` of a config.

    Raises:
      UserError: it is not a likelihood of the pixels that the config asks for.
    """
    name, pixels = config.objective.likelihood, config.data.pixels
    likelihood = LIKELIHOODS[name]
    in_unit = pixels not in ("symmetric", "integers")
    require(in_unit, "data.pixels", pixels, "a kind of pixels in [0, 1]")
    fits = likelihood.over != "levels" or pixels == "unit"
    require(fits, "data.pixels", pixels, f"unit with config.objective.likelihood={name}")
    return likelihood


def bits_per_dim(
    numbers: dict[str, float], likelihood: Likelihood, pixels: str, dims: int
) -> dict[str, float]:
    """Converts bounds in nats to bits per dimension, where those are defined.

    They are for a probability of 8-bit levels, and for a density of pixels with uniform noise.
    Binary pixels are reported in nats; a density of 8-bit pixels without noise has no bits.

    Args:
      numbers: by name, "neg_elbo_nats" and "nll_nats_..." among them.
      likelihood: of the model.
      pixels: config.data.pixels.
      dims: numbers in an image.

    Returns:
      {"bits_per_dim_elbo", "bits_per_dim_iw<k>"} of those that are there, or {}.
    """
    if likelihood.over == "levels":
        bits = lambda nats: bits_per_dim_of_mass(nats, dims)
    elif likelihood.over == "continuous" and pixels == "dequantized":
        bits = lambda nats: bits_per_dim_of_density(nats, dims, levels=256, data_range=(0, 1))
    else:
        return {}
    names = {"neg_elbo_nats": "elbo"}
    names |= {k: k.removeprefix("nll_nats_") for k in numbers if k.startswith("nll_nats_")}
    return {f"bits_per_dim_{name}": bits(numbers[k]) for k, name in names.items()}
