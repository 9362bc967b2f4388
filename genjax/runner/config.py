"""The fields that every run has, and the rules that involve more than one of them."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from genjax.data.dataset import BAD_IMAGES, LOADERS
from genjax.data.transforms import FLIPS, PIXELS
from genjax.metrics.nets import PINNED
from genjax.models.inception import RESIZES
from genjax.runner.fields import (
    Fields,
    When,
    check_fields,
    check_idle,
    defaults,
    field,
    forget_idle,
    is_set,
    merged,
    one_of,
    other_than,
    require,
    starts_with,
)
from genjax.train.guard import POLICIES
from genjax.train.optimizers import DECAYING, LINE_SEARCHING, OPTIMIZERS, SCHEDULES
from genjax.train.parallel import KINDS

SEED = dict(at_least=0, below=2**32)
EVERY = "steps between two; 0: only at the end"

# Kinds of data by the beginning of their names; the others are TFDS's.
FILES = ("folder:", "npz:", "picture:", "codes:")
UNSPLIT = ("npz:", "picture:")  # the same in every split

_ADAMS = one_of("optim.name", "adam", "adamw", "adamax", "muon")
_STEPPING = other_than("optim.name", *LINE_SEARCHING)
_JUDGED = is_set("eval.num_samples", "eval.num_samples_in_loop")
_AVERAGED = is_set("ema.decay", "ema.half_life_images")


def _is_tfds(name: str) -> bool:
    return bool(name) and not str(name).startswith(FILES)


_IN_TFDS = When(tuple((f"data.{key}", _is_tfds, " of TFDS") for key in ("name", "eval_name")))
_IN_FOLDERS = starts_with("data.name", "folder:") | starts_with("data.eval_name", "folder:")
_IN_FOLDERS |= starts_with("style_data", "folder:")

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
        "lr": field(1e-3, "peak learning rate", at_least=0, only_with=_STEPPING),
        "schedule": field(
            "constant",
            "of the learning rate, after the warm-up",
            one_of=SCHEDULES,
            only_with=_STEPPING,
        ),
        "warmup_steps": field(0, "steps of linear warm-up", at_least=0, only_with=_STEPPING),
        "b1": field(0.9, at_least=0, below=1, only_with=_ADAMS),
        "b2": field(0.999, at_least=0, below=1, only_with=_ADAMS),
        "eps": field(1e-8, above=0, below=1, only_with=_ADAMS),
        "momentum": field(
            0.9, at_least=0, below=1, only_with=one_of("optim.name", "sgd", "muon", "airbench")
        ),
        "weight_decay": field(0.0, at_least=0, only_with=one_of("optim.name", *DECAYING)),
        "clip_norm": field(
            0.0,
            "largest global norm of the gradient; 0: no clipping",
            at_least=0,
            only_with=_STEPPING,
        ),
        "skip_norm": field(
            0.0,
            "a step whose gradient norm is above it is left out; 0: none",
            at_least=0,
            only_with=_STEPPING,
        ),
        "accumulate_steps": field(
            1, "parts that a batch is worked through in, to save memory", at_least=1
        ),
    },
    "ema": {
        "decay": field(
            0.0,
            "of the average of parameters, per step; 0: none",
            at_least=0,
            below=1,
            only_with=one_of("ema.half_life_images", 0),
        ),
        "half_life_images": field(0.0, "replaces decay, if positive", at_least=0),
        "warmup": field(True, "early averages are shorter", only_with=_AVERAGED),
    },
    "data": {
        "name": field(
            "digits",
            "a TFDS name, folder:/path, npz:/path.npz or codes:/path.npz",
            names="dataset",
        ),
        "data_dir": field("", '"": $TFDS_DATA_DIR, then ~/tensorflow_datasets', only_with=_IN_TFDS),
        "image_shape": field((28, 28, 1), "height, width, channels (1 or 3)", at_least=1),
        "train_split": field(
            "train",
            only_with=When((("data.name", lambda n: not n.startswith(UNSPLIT), " with splits"),)),
        ),
        "eval_name": field(
            "", '"": data.name; else another dataset with the same classes', names="dataset"
        ),
        "eval_split": field("test"),
        "pixels": field("unit", "how pixels are scaled or binarized", one_of=PIXELS),
        "flip": field("none", "horizontal flips; alternating: every other epoch", one_of=FLIPS),
        "crop_padding": field(0, "pixels around a random crop", at_least=0),
        "on_device": field(
            False,
            "keep the whole training set on each device",
            only_with=one_of("data.loader", "array"),
        ),
        "loader": field(
            "array", "array: decoded once and cached; grain: decoded as needed", one_of=LOADERS
        ),
        "num_workers": field(
            0,
            "processes that decode, for grain; 0: threads",
            at_least=0,
            only_with=one_of("data.loader", "grain"),
        ),
        "bad_images": field(
            "fail",
            "what to do about unreadable images",
            one_of=BAD_IMAGES,
            only_with=_IN_FOLDERS,
        ),
    },
    "eval": {
        "batch_size": field(500, at_least=1),
        "num_samples": field(
            0, "images generated at the end and compared with real ones", at_least=0
        ),
        "num_samples_in_loop": field(
            0, "the same every eval_every_steps, for the Frechet distance alone", at_least=0
        ),
        "seed": field(
            0,
            "of the generated images",
            **SEED,
            only_with=_JUDGED | is_set("eval.standing_samples"),
        ),
        "net": field(
            "",
            "a pinned feature net, inception[:/path], or /path/feature_net.npz",
            only_with=_JUDGED | one_of("eval.net", *PINNED),  # named with the data by presets
        ),
        "resize": field(
            "tf1",
            "how Inception resizes",
            one_of=RESIZES,
            only_with=starts_with("eval.net", "inception"),
        ),
        "reference": field(
            "train", "the split compared with", one_of=("train", "eval"), only_with=_JUDGED
        ),
        "metrics": field(
            ("fd", "kd", "pr", "dc", "copies"), items=str, only_with=is_set("eval.num_samples")
        ),
    },
    "sample": {
        "num": field(64, at_least=1),
        "seed": field(0, **SEED),
        "batch_size": field(0, "images at a time; 0: 64 on a CPU, 500 elsewhere", at_least=0),
        "label": field(-1, "-1: all classes in turn"),
    },
    "checkpoint": {
        "keep_last": field(2, at_least=1),
        "keep_every": field(
            0,
            "keep every checkpoint at a multiple of it; 0: none",
            at_least=0,
            only_with=is_set("checkpoint_every_steps"),
        ),
        "best_metric": field(
            "", "keep the best checkpoint by this metric", only_with=is_set("eval_every_steps")
        ),
        "best_mode": field(
            "min", one_of=("min", "max"), only_with=is_set("checkpoint.best_metric")
        ),
    },
    "nonfinite": {
        "policy": field(
            "raise",
            "on a NaN or an infinity: raise; skip the update; rollback to the newest checkpoint",
            one_of=POLICIES,
        ),
        "limit": field(
            10,
            "skips in a row, or rollbacks in all, before raising",
            at_least=1,
            only_with=one_of("nonfinite.policy", "skip", "rollback"),
        ),
    },
    "requeue_exit_code": field(
        0, "after a stop by a signal, for a scheduler", at_least=0, at_most=255
    ),
    "profile": {
        "start_step": field(10, at_least=0, only_with=is_set("profile.num_steps")),
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

# The names of datasets that are paths: these may be elsewhere when a run continues.
PATH_KINDS = ("folder:", "npz:", "codes:", "picture:")

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


def apply_smoke(config: ConfigDict, smoke: Mapping[str, Any], fields: Fields) -> ConfigDict:
    """Makes a run tiny: seconds on two cores, on the embedded data, at its own image shape.

    Args:
      config: changed in place and returned.
      smoke: {dotted key: value}, what the family shrinks.
      fields: those of its family. What has no effect in the tiny run is at its default.
    """
    samples = {k: config.eval[k] for k in ("num_samples", "num_samples_in_loop")}
    most = {"num_samples": 32, "num_samples_in_loop": 16}
    fewer = {f"eval.{k}": min(n, most[k]) for k, n in samples.items()}
    tiny = {**SMOKE, **fewer, **smoke}
    config.update_from_flattened_dict(tiny)
    return forget_idle(config, merged(FIELDS, fields), tiny)


def check_config(
    config: ConfigDict, fields: Fields, num_devices: int, used: tuple[str, ...] = ()
) -> None:
    """Checks a config before any data is read and anything is compiled.

    Args:
      config: of a run.
      fields: those of its family.
      num_devices: how many devices the run has.
      used: beginnings of keys that have an effect whatever the other fields are.

    Raises:
      UserError: one line about the first value that is not allowed, or that has no effect.
    """
    check_values(config, fields, num_devices)
    check_idle(config, merged(FIELDS, fields), used)


def check_values(config: ConfigDict, fields: Fields, num_devices: int) -> None:
    """Checks the values of a config as `check_config` does, but not whether they have an effect."""
    check_fields(config, merged(FIELDS, fields))
    steps, warmup = config.num_train_steps, config.optim.warmup_steps
    require(warmup < steps, "optim.warmup_steps", warmup, f"less than num_train_steps={steps}")
    start, profiled = config.profile.start_step, config.profile.num_steps
    what = f"less than num_train_steps={steps}"
    require(not profiled or start < steps, "profile.start_step", start, what)
    _check_optimizer(config)
    _check_data(config)
    parts = num_devices * config.optim.accumulate_steps
    require(
        config.batch_size % parts == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of devices x optim.accumulate_steps = {num_devices} x "
        f"{config.optim.accumulate_steps}",
    )


def _check_optimizer(config: ConfigDict) -> None:
    """Raises a UserError for the optimizer of one network with another."""
    network = config.get("model", {}).get("name", config.experiment)
    fits = config.optim.name != "airbench" or network == "airbench"
    what = f"another with config.model.name={network}: it is made for the network airbench"
    require(fits, "optim.name", config.optim.name, what)


def _check_data(config: ConfigDict) -> None:
    """Raises a UserError for fields of config.data that do not go together."""
    data = config.data
    shape, padding = tuple(data.image_shape), data.crop_padding
    fits = len(shape) == 3 and shape[2] in (1, 3)
    require(fits, "data.image_shape", shape, "(height, width, channels) with 1 or 3 channels")
    smaller = padding < min(shape[:2])
    sides = f"less than the image's sides {shape[:2]}"
    require(smaller, "data.crop_padding", padding, sides)
    evaluated, default = data.eval_name or data.name, FIELDS["data"]["eval_split"].default
    split = not evaluated.startswith(UNSPLIT) or data.eval_split == default
    what = f"{default!r} with data of '{evaluated}': they are the same in every split"
    require(split, "data.eval_split", data.eval_split, what)


def changed_keys(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    idle: Collection[str] = (),
    files: Mapping[str, str] | None = None,
) -> dict[str, tuple[Any, Any]]:
    """Compares two flattened configs.

    Args:
      old, new: {dotted key: value}.
      idle: fields without an effect that are at their defaults in the new one; they may have had
        any value before.
      files: the `named_files` of the new config.

    Returns:
      {key: (old value, new value)} of the fields whose change makes it another run. Paths of data
      are not among them, see `moved_keys`.
    """
    moved = moved_keys(old, new, files or {})
    steady = new.get("optim.schedule") == "constant"
    may_change = tuple(k for k in MAY_CHANGE if steady or k != "num_train_steps")
    return {
        key: (old.get(key, "absent"), new.get(key, "absent"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not key.startswith(may_change)
        and key not in idle
        and key not in moved
    }


def moved_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], files: Mapping[str, str]
) -> list[str]:
    """Returns the fields of two flattened configs that name data at different paths.

    Args:
      old, new: {dotted key: value}.
      files: the `named_files` of the new config.
    """
    both_paths = lambda key: any(
        str(old[key]).startswith(kind) and str(new[key]).startswith(kind) for kind in PATH_KINDS
    )
    return sorted(
        key
        for key, names in files.items()
        if key in old and old[key] != new[key] and (names != "dataset" or both_paths(key))
    )
