"""The fields that every run has, and the rules that involve more than one of them."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from genjax.data.dataset import BAD_IMAGES, LOADERS
from genjax.data.transforms import FLIPS, PIXELS
from genjax.runner.fields import (
    Fields,
    check_fields,
    defaults,
    field,
    merged,
    require,
)
from genjax.train.guard import POLICIES
from genjax.train.optimizers import DECAYING, OPTIMIZERS, SCHEDULES
from genjax.train.parallel import KINDS

SEED = dict(at_least=0, below=2**32)
EVERY = "steps between two; 0: only at the end"

FIELDS = {
    "experiment": field("", "the family, a key of experiments.FAMILIES"),
    "seed": field(0, "of everything random", **SEED),
    "num_seeds": field(1, "runs with seeds seed, seed + 1, ...; report of mean, std", at_least=1),
    "parallel": field(
        "jit",
        "jit: one global batch; pmap: replicas; fsdp: parameters and optimizer state sharded too",
        one_of=KINDS,
    ),
    "num_devices": field(0, "0: all there are", at_least=0),
    "batch_size": field(128, "images per step, over all devices", at_least=1),
    "num_train_steps": field(1000, at_least=1),
    "log_every_steps": field(50, at_least=1),
    "eval_every_steps": field(500, f"evaluations: {EVERY}", at_least=0),
    "sample_every_steps": field(500, f"grids of samples and figures: {EVERY}", at_least=0),
    "checkpoint_every_steps": field(500, f"checkpoints: {EVERY}", at_least=0),
    "steps_per_call": field(
        0, "steps per dispatch; 0: 1 on CPU, up to 8 on accelerators", at_least=0
    ),
    "compute_dtype": field(
        "float32", "of activations; parameters stay float32", one_of=("float32", "bfloat16")
    ),
    "optim": {
        "name": field("adam", one_of=OPTIMIZERS),
        "lr": field(1e-3, "peak learning rate", at_least=0),
        "schedule": field("constant", "of the learning rate, after the warm-up", one_of=SCHEDULES),
        "warmup_steps": field(0, "steps of linear warm-up", at_least=0),
        "b1": field(0.9, at_least=0, below=1),
        "b2": field(0.999, at_least=0, below=1),
        "eps": field(1e-8, above=0, below=1),
        "momentum": field(0.9, at_least=0, below=1),
        "weight_decay": field(0.0, at_least=0),
        "clip_norm": field(0.0, "largest global norm of the gradient; 0: no clipping", at_least=0),
        "skip_norm": field(
            0.0, "a step whose gradient norm is above it is left out; 0: none", at_least=0
        ),
        "accumulate_steps": field(
            1, "parts that a batch is worked through in, to save memory", at_least=1
        ),
    },
    "ema": {
        "decay": field(0.0, "of the average of parameters, per step; 0: none", at_least=0, below=1),
        "half_life_images": field(0.0, "replaces decay, if positive", at_least=0),
        "warmup": field(True, "early averages are shorter"),
    },
    "data": {
        "name": field("digits", "a TFDS name, folder:/path, npz:/path.npz or codes:/path.npz"),
        "data_dir": field("", '"": $TFDS_DATA_DIR, then ~/tensorflow_datasets'),
        "image_shape": field((28, 28, 1), "height, width, channels (1 or 3)", at_least=1),
        "train_split": field("train"),
        "eval_name": field("", '"": data.name; else another dataset with the same classes'),
        "eval_split": field("test"),
        "pixels": field("unit", "how pixels are scaled or binarized", one_of=PIXELS),
        "flip": field("none", "horizontal flips; alternating: every other epoch", one_of=FLIPS),
        "crop_padding": field(0, "pixels around a random crop", at_least=0),
        "on_device": field(False, "keep the whole training set on each device"),
        "loader": field(
            "array", "array: decoded once and cached; grain: decoded as needed", one_of=LOADERS
        ),
        "num_workers": field(0, "processes that decode, for grain; 0: threads", at_least=0),
        "bad_images": field("fail", "what to do about unreadable images", one_of=BAD_IMAGES),
    },
    "eval": {
        "batch_size": field(500, at_least=1),
        "num_samples": field(
            0, "images generated at the end and compared with real ones", at_least=0
        ),
        "num_samples_in_loop": field(
            0, "the same every eval_every_steps, for the Frechet distance alone", at_least=0
        ),
        "seed": field(0, "of the generated images", **SEED),
        "net": field("", "a pinned feature net, inception[:/path], or /path/feature_net.npz"),
        "resize": field("tf1", "how Inception resizes: tf1 or torch"),
        "reference": field("train", "the split compared with: train or eval"),
        "metrics": field(("fd", "kd", "pr", "dc", "copies"), items=str),
    },
    "sample": {
        "num": field(64, at_least=1),
        "seed": field(0, **SEED),
        "batch_size": field(64, at_least=1),
        "label": field(-1, "-1: all classes in turn"),
    },
    "checkpoint": {
        "keep_last": field(2, at_least=1),
        "keep_every": field(0, "keep every checkpoint at a multiple of it; 0: none", at_least=0),
        "best_metric": field("", "keep the best checkpoint by this metric"),
        "best_mode": field("min", one_of=("min", "max")),
    },
    "nonfinite": {
        "policy": field(
            "raise",
            "on a NaN or an infinity: raise; skip the update; rollback to the newest checkpoint",
            one_of=POLICIES,
        ),
        "limit": field(10, "skips in a row, or rollbacks in all, before raising", at_least=1),
    },
    "requeue_exit_code": field(
        0, "after a stop by a signal, for a scheduler", at_least=0, at_most=255
    ),
    "profile": {
        "start_step": field(10, at_least=0),
        "num_steps": field(0, "steps of a jax.profiler trace; 0: none", at_least=0),
    },
}

# What may differ from the workdir's config.json when a run is resumed: how long, how often, where
# and on which devices, but nothing that changes the numbers.
MAY_CHANGE = (
    "num_train_steps",  # where the learning rate does not look ahead
    "log_every_steps",
    "eval_every_steps",
    "sample_every_steps",
    "checkpoint_every_steps",
    "steps_per_call",
    "parallel",
    "num_devices",
    "data.data_dir",
    "data.on_device",
    "data.loader",
    "data.num_workers",
    "data.bad_images",  # the data's fingerprint says whether that changed them
    "checkpoint.",
    "nonfinite.",
    "requeue_exit_code",
    "profile.",
    "sample.",
    "init_from",  # where that workdir is now
)

# What may be at another path when a run is resumed, because a checksum says whether it is the same:
# datasets of one of these kinds, pictures, and what the family keeps the checksums of.
PATH_KINDS = ("folder:", "npz:", "codes:", "picture:")
DATASETS = ("data.name", "data.eval_name")
PICTURES = ("content", "style", "more_styles", "guides.content", "guides.style")
FROZEN = ("weights", "style_data")

SMOKE = {
    "data.name": "digits",
    "data.data_dir": "",
    "batch_size": 16,
    "num_train_steps": 8,
    "log_every_steps": 2,
    "eval_every_steps": 4,
    "sample_every_steps": 4,
    "checkpoint_every_steps": 4,
    "eval.batch_size": 72,
    "sample.num": 16,
    "sample.batch_size": 16,
}


def make_config(experiment: str, fields: Fields) -> ConfigDict:
    """Returns the default config of a family: the shared fields and its own `fields`."""
    config = ConfigDict(defaults(merged(FIELDS, fields)))
    config.experiment = experiment
    return config


def apply_smoke(config: ConfigDict, smoke: Mapping[str, Any]) -> ConfigDict:
    """Makes a run tiny: seconds on two cores, on the embedded data, at its own image shape.

    Args:
      config: changed in place and returned.
      smoke: {dotted key: value}, what the family shrinks.
    """
    samples = {k: config.eval[k] for k in ("num_samples", "num_samples_in_loop")}
    most = {"num_samples": 32, "num_samples_in_loop": 16}
    fewer = {f"eval.{k}": min(n, most[k]) for k, n in samples.items()}
    config.update_from_flattened_dict({**SMOKE, **fewer, **smoke})
    return config


def check_config(config: ConfigDict, fields: Fields, num_devices: int) -> None:
    """Checks a config before any data is read and anything is compiled.

    Args:
      config: of a run.
      fields: those of its family.
      num_devices: how many devices the run has.

    Raises:
      UserError: one line about the first value that is not allowed.
    """
    check_fields(config, merged(FIELDS, fields))
    steps, warmup = config.num_train_steps, config.optim.warmup_steps
    require(warmup < steps, "optim.warmup_steps", warmup, f"less than num_train_steps={steps}")
    optim, decay = config.optim.name, config.optim.weight_decay
    idle = decay > 0 and optim not in DECAYING
    require(not idle, "optim.weight_decay", decay, f"0 with config.optim.name={optim}")
    resident = config.data.on_device and config.data.loader != "array"
    require(not resident, "data.on_device", True, "False with config.data.loader=grain")
    shape, padding = tuple(config.data.image_shape), config.data.crop_padding
    fits = len(shape) == 3 and shape[2] in (1, 3)
    require(fits, "data.image_shape", shape, "(height, width, channels) with 1 or 3 channels")
    smaller = padding < min(shape[:2])
    sides = f"less than the image's sides {shape[:2]}"
    require(smaller, "data.crop_padding", padding, sides)
    parts = num_devices * config.optim.accumulate_steps
    require(
        config.batch_size % parts == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of devices x optim.accumulate_steps = {num_devices} x "
        f"{config.optim.accumulate_steps}",
    )


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compares two flattened configs.

    Returns:
      {key: (old value, new value)} of the fields whose change makes it another run. Paths of data
      are not among them, see `moved_keys`.
    """
    moved = moved_keys(old, new)
    steady = new.get("optim.schedule") == "constant"
    may_change = tuple(k for k in MAY_CHANGE if steady or k != "num_train_steps")
    return {
        key: (old.get(key, "absent"), new.get(key, "absent"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(may_change) and key not in moved
    }


def moved_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the fields of two flattened configs that name data at different paths."""
    differ = [key for key in old.keys() & new.keys() if old[key] != new[key]]
    same_kind = lambda key: any(
        str(old[key]).startswith(kind) and str(new[key]).startswith(kind) for kind in PATH_KINDS
    )
    return sorted(
        key for key in differ if key in (*PICTURES, *FROZEN) or key in DATASETS and same_kind(key)
    )
