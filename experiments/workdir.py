"""What a workdir remembers of its run, and what may not change when the run goes on."""

import json
from pathlib import Path

import ml_collections

from experiments.config import base_config, changed_keys, flatten
from experiments.run import warn
from genjax import files
from genjax.errors import UserError
from genjax.train.checkpoint import Checkpoints
from genjax.train.logs import read_metrics


def check_folder(workdir):
    """Refuses a workdir that is a file, or below one."""
    there = Path(workdir).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UserError(f"--workdir={workdir}: {there} is a file; choose another --workdir")


def check_config(workdir, config, allow=()):
    """Refuses a workdir whose config is another one, naming each key.

    Returns:
      Whether the workdir holds a run.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return False
    _compare(workdir, _read(path)["config"], config, allow)
    return True


def check_restored(workdir, meta, run, allow=()):
    """Refuses a checkpoint whose own config is another one (config.json may be lost), or of a run
    that was given other frozen weights."""
    what = f"step {meta['step']} in {workdir}"
    _compare(what, meta["config"], run.config, allow)
    there = meta["extra"].get("frozen", {})
    for name, now in run.experiment.frozen.items():
        if there.get(name) != now:
            raise UserError(
                f"{what} was made with another '{name}': {there.get(name)} there, {now} now; bring "
                "it back, or choose another --workdir"
            )


def _compare(what, there, config, allow):
    changed = changed_keys(flatten(there), flatten(config))
    changed = {k: v for k, v in changed.items() if not k.startswith(tuple(allow))}
    if changed:
        listed = "; ".join(
            f"config.{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items()
        )
        raise UserError(f"{what} belongs to another config ({listed}); choose another --workdir")


def trained_config(workdir, config):
    """The config of another workdir's run, to be restored where and as `config` says."""
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} holds no run: there is no {path}")
    there = ml_collections.ConfigDict(_with_tuples(_read(path)["config"]))
    _fill(there, base_config())  # an older one may lack some; `check_config` then says so
    here = config.copy_and_resolve_references()
    for key in ("parallel", "num_devices", "eval", "sample"):
        there[key] = here[key]
    there.data.data_dir = here.data.data_dir
    there.num_seeds = 1
    return there


def _fill(config, defaults):
    for key, value in defaults.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ml_collections.ConfigDict):
            _fill(config[key], value)


def _with_tuples(value):
    """JSON's lists as tuples, which configs have instead."""
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def check_data(workdir, run):
    """Refuses a workdir whose data are no longer what they were when its run began."""
    path = Path(workdir) / "config.json"
    known = _read(path).get("data", {}) if path.exists() else {}
    for key, now in describe_data(run).items():
        if key in known and known[key] != now:
            raise UserError(
                f"dataset '{now['name']}' ({now['split']}) has changed on disk since {workdir} "
                f"began: {known[key]['num_examples']} examples, fingerprint "
                f"{known[key]['fingerprint'][:12]} then, {now['num_examples']}, "
                f"{now['fingerprint'][:12]} now; bring it back, or choose another --workdir"
            )


def describe_data(run):
    """{"train/array": {...}, "eval/array": {...}}: what data a run sees.

    The fingerprint is that of the decoded pixels, or, where they are never all decoded, of the
    files; so it is told apart by loader.
    """
    return {
        f"{role}/{run.config.data.loader}": {
            "name": data.name,
            "split": data.split,
            "num_examples": len(data),
            "fingerprint": data.fingerprint,
        }
        for role, data in (("train", run.train_data), ("eval", run.eval_data))
    }


def write_config(workdir, run, source):
    """config.json: the command's config file and overrides, the resolved config, the data."""
    path = Path(workdir) / "config.json"
    known = _read(path).get("data", {}) if path.exists() else {}
    config = json.loads(run.config.to_json())
    data = {**known, **describe_data(run)}
    files.write_json(path, {**source, "config": config, "data": data})


def open_checkpoints(config, workdir, read_only=False):
    """The checkpoints of a workdir, as the config wants them kept."""
    # A run that was stopped at an evaluation saved first: the numbers came later.
    lines = read_metrics(Path(workdir) / "metrics.jsonl")
    return Checkpoints(
        Path(workdir) / "checkpoints",
        **config.checkpoint.to_dict(),
        scores={x["step"]: x for x in lines if any(k.startswith("eval/") for k in x)},
        read_only=read_only,
        warn=warn,
    )


def _read(path):
    found = files.read_json(path)
    if not found or not isinstance(found.get("config"), dict):
        raise UserError(f"{path} is damaged: mend it, or choose another --workdir")
    return found
