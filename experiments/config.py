"""The fields that every config has, the arguments every config takes, and what may not be set."""

import difflib
import json
import math

import ml_collections

from genjax.data.dataset import BAD_IMAGES, LOADERS
from genjax.data.transforms import FLIPS, PIXELS
from genjax.errors import UserError
from genjax.train.guard import POLICIES
from genjax.train.optimizers import DECAYING, OPTIMIZERS, SCHEDULES
from genjax.train.parallel import KINDS

DTYPES = ("float32", "bfloat16")

# What may differ from the workdir's config.json when a run is resumed: how long, how often, where
# and on what, but nothing that changes the numbers.
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
    "init_from",  # where the workdir is now
)


def base_config():
    """Defaults of the fields all families share; a config changes them and adds its own."""
    return ml_collections.ConfigDict(
        {
            "experiment": "",  # the file in experiments/
            "seed": 0,
            "num_seeds": 1,  # runs with seeds seed, seed + 1, ...; mean and deviation in the report
            "parallel": "jit",  # "jit": one global batch; "pmap": replicas; "fsdp": state cut too
            "num_devices": 0,  # 0: all there are
            "batch_size": 128,  # global, per step
            "num_train_steps": 1000,
            "log_every_steps": 50,
            "eval_every_steps": 500,  # 0: only at the end; likewise below
            "sample_every_steps": 500,
            "checkpoint_every_steps": 500,
            "steps_per_call": 0,  # steps per dispatch; 0: 1 on CPU, up to 8 on accelerators
            "compute_dtype": "float32",  # of activations; parameters stay float32
            "optim": {
                "name": "adam",
                "lr": 1e-3,
                "schedule": "constant",
                "warmup_steps": 0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "momentum": 0.9,
                "weight_decay": 0.0,
                "clip_norm": 0.0,  # 0: no clipping
                "skip_norm": 0.0,  # a step whose gradients' norm is above it is left out; 0: none
                "accumulate_steps": 1,  # parts a batch is worked through in
            },
            "ema": {
                "decay": 0.0,  # per step; 0: no average
                "half_life_images": 0.0,  # instead of decay, if positive
                "warmup": True,
            },
            "data": {
                "name": "digits",  # a TFDS name or folder:/path
                "data_dir": "",  # "": $TFDS_DATA_DIR, then ~/tensorflow_datasets
                "image_shape": (28, 28, 1),
                "train_split": "train",
                "eval_name": "",  # "": name; else another dataset, of the same classes
                "eval_split": "test",
                "pixels": "unit",
                "flip": "none",  # or "random", or "alternating" from epoch to epoch
                "crop_padding": 0,
                "on_device": False,  # keep the whole training set on each device
                "loader": "array",  # "array": decoded once, cached; "grain": decoded as needed
                "num_workers": 0,  # processes that decode, for "grain"; 0: threads
                "bad_images": "fail",  # what to do about a picture that cannot be read, or "skip"
            },
            "eval": {
                "batch_size": 500,
                # Generated images are compared with real ones: so many at the end and with
                # --mode=eval, and so many, by Fréchet distance alone, every eval_every_steps.
                "num_samples": 0,
                "num_samples_in_loop": 0,
                "seed": 0,  # of the images drawn
                "net": "",  # a pinned feature net, "inception[:/path]", /path/feature_net.npz
                "resize": "tf1",  # or "torch": how Inception resizes
                "reference": "train",  # or "eval": the split compared with
                "metrics": ("fd", "kd", "pr", "dc", "copies"),
            },
            # label -1: all classes in turn
            "sample": {"num": 64, "seed": 0, "batch_size": 64, "label": -1},
            "checkpoint": {"keep_last": 2, "keep_every": 0, "best_metric": "", "best_mode": "min"},
            # A NaN or an infinity: "raise", "skip" the update (so often in a row at most), or
            # "rollback" to the newest checkpoint (so often in all) and past the data since.
            "nonfinite": {"policy": "raise", "limit": 10},
            "requeue_exit_code": 0,  # after a stop by a signal, for a scheduler that looks at it
            "profile": {"start_step": 10, "num_steps": 0},  # a jax.profiler trace, 0: none
        }
    )


def apply_arg(config, arg, smoke=None):
    """Applies what stands behind the colon of `--config=configs/x.py:arg`.

    Args:
      config: the full config of the run, changed in place.
      arg: "", or parts joined by commas: "smoke" (seconds on two cores, on the embedded data at
        the run's own image shape) and "seeds=n".
      smoke: {dotted key: value}, what else makes this run tiny.
    """
    for part in filter(None, (arg or "").split(",")):
        name, _, value = part.partition("=")
        if part == "smoke":
            tiny = {
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
                "eval.num_samples": min(config.eval.num_samples, 32),
                "eval.num_samples_in_loop": min(config.eval.num_samples_in_loop, 16),
            }
            config.update_from_flattened_dict({**tiny, **(smoke or {})})
        elif name == "seeds" and value.isdigit() and int(value) > 0:
            config.num_seeds = int(value)
        else:
            raise UserError(f"config argument '{part}': known are 'smoke' and 'seeds=<n>'")
    return config


def flatten(config):
    """{dotted key: value} of a ConfigDict or of nested dicts, tuples as lists, as JSON has them."""
    nested = json.loads(config.to_json() if hasattr(config, "to_json") else json.dumps(config))
    flat = {}

    def walk(prefix, value):
        for key, child in value.items():
            if isinstance(child, dict):
                walk(f"{prefix}{key}.", child)
            else:
                flat[f"{prefix}{key}"] = child

    walk("", nested)
    return flat


def choose(options, name, key):
    """`options[name]` for a dict (`name` for a tuple), or a UserError with the nearest name."""
    if name not in options:
        close = difflib.get_close_matches(str(name), options, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(options)}"
        raise UserError(f"config.{key}='{name}' is not known; {hint}")
    return options[name] if isinstance(options, dict) else name


def require(condition, key, value, what):
    """Raises the UserError that `config.<key>=<value>` must be `what`, unless it is."""
    if not condition:
        raise UserError(f"config.{key}={value!r} must be {what}")


def validate(config, num_devices):
    """Checks the shared fields, before any data is read or anything is compiled."""
    flat = flatten(config)
    for key in (
        "num_seeds",
        "batch_size",
        "num_train_steps",
        "log_every_steps",
        "optim.accumulate_steps",
        "eval.batch_size",
        "sample.num",
        "sample.batch_size",
        "checkpoint.keep_last",
        "nonfinite.limit",
    ):
        require(flat[key] >= 1, key, flat[key], "at least 1")
    for key in (
        "seed",
        "num_devices",
        "eval_every_steps",
        "eval.num_samples",
        "eval.num_samples_in_loop",
        "sample_every_steps",
        "checkpoint_every_steps",
        "steps_per_call",
        "optim.warmup_steps",
        "optim.lr",
        "optim.weight_decay",
        "optim.clip_norm",
        "optim.skip_norm",
        "ema.half_life_images",
        "data.crop_padding",
        "data.num_workers",
        "checkpoint.keep_every",
        "profile.start_step",
        "profile.num_steps",
        "sample.seed",
        "eval.seed",
    ):
        require(
            flat[key] >= 0 and math.isfinite(flat[key]), key, flat[key], "at least 0 and finite"
        )
    for key in ("seed", "sample.seed", "eval.seed"):
        require(flat[key] < 2**32, key, flat[key], "less than 2^32")
    require(0 < flat["optim.eps"] < 1, "optim.eps", flat["optim.eps"], "in (0, 1)")
    steps = config.num_train_steps
    warmup = config.optim.warmup_steps
    require(warmup < steps, "optim.warmup_steps", warmup, f"less than num_train_steps={steps}")
    for key in ("ema.decay", "optim.b1", "optim.b2", "optim.momentum"):
        require(0 <= flat[key] < 1, key, flat[key], "in [0, 1)")
    choose(KINDS, config.parallel, "parallel")
    choose(DTYPES, config.compute_dtype, "compute_dtype")
    choose(OPTIMIZERS, config.optim.name, "optim.name")
    choose(SCHEDULES, config.optim.schedule, "optim.schedule")
    decay = config.optim.weight_decay
    idle = decay > 0 and config.optim.name not in DECAYING
    require(not idle, "optim.weight_decay", decay, f"0 with config.optim.name={config.optim.name}")
    choose(PIXELS, config.data.pixels, "data.pixels")
    choose(FLIPS, config.data.flip, "data.flip")
    choose(LOADERS, config.data.loader, "data.loader")
    choose(BAD_IMAGES, config.data.bad_images, "data.bad_images")
    choose(POLICIES, config.nonfinite.policy, "nonfinite.policy")
    code = config.requeue_exit_code
    require(0 <= code <= 255, "requeue_exit_code", code, "between 0 and 255")
    resident = config.data.on_device and config.data.loader != "array"
    require(not resident, "data.on_device", True, "False with config.data.loader=grain")
    choose(("min", "max"), config.checkpoint.best_mode, "checkpoint.best_mode")
    shape = config.data.image_shape
    whole = len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
    require(
        whole and shape[2] in (1, 3),
        "data.image_shape",
        tuple(shape),
        "(height, width, channels) with 1 or 3 channels",
    )
    require(
        config.data.crop_padding < min(shape[:2]),
        "data.crop_padding",
        config.data.crop_padding,
        f"less than the image's sides {tuple(shape[:2])}",
    )
    parts = num_devices * config.optim.accumulate_steps
    require(
        config.batch_size % parts == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of devices x optim.accumulate_steps = {num_devices} x "
        f"{config.optim.accumulate_steps}",
    )


def changed_keys(old, new):
    """Keys whose change alters a run: {key: (old value, new value)}, of two flattened configs."""
    steady = new.get("optim.schedule") == "constant"
    may_change = tuple(k for k in MAY_CHANGE if steady or k != "num_train_steps")
    return {
        key: (old.get(key, "absent"), new.get(key, "absent"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(may_change)
    }
