"""What a workdir records about its run, and what may not change when the run continues."""

import json
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import ConfigDict

import genjax
from genjax import files
from genjax.data.picture import picture_source
from genjax.data.source import sha256_of
from genjax.errors import UserError
from genjax.runner.config import FIELDS, changed_keys, moved_keys
from genjax.runner.family import find_family
from genjax.runner.fields import Fields, defaults, flatten, idle_defaults, merged, named_files
from genjax.runner.run import Run
from genjax.runner.terminal import warn
from genjax.train.checkpoint import Checkpoints
from genjax.train.logs import MetricLog, NoLog, read_metrics
from genjax.train.parallel import from_main, is_main


def check_folder(workdir: str | Path) -> None:
    """Raises a UserError for a workdir that is a file, or below one, or has no name in Unicode."""
    try:
        str(Path(workdir).absolute()).encode()
    except UnicodeEncodeError as error:  # the library that writes checkpoints takes no other
        raise UserError(
            f"--workdir={workdir} has a name that is not UTF-8, in which no checkpoint can be "
            "written; choose another --workdir"
        ) from error
    there = Path(workdir).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UserError(f"--workdir={workdir}: {there} is a file; choose another --workdir")


# ---- The config and the data ----


def check_workdir(
    workdir: str | Path, config: ConfigDict, may_differ: tuple[str, ...] = ()
) -> bool:
    """Returns whether a workdir holds a run.

    Args:
      workdir: of a run, or of none yet.
      config: of the run that is to continue there.
      may_differ: beginnings of keys that may have changed besides `MAY_CHANGE`.

    Raises:
      UserError: it holds a run of another config; the message names each key.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return False
    _compare(workdir, _read(path)["config"], config, may_differ)
    return True


def check_restored(
    workdir: str | Path, meta: dict[str, Any], run: Run, may_differ: tuple[str, ...] = ()
) -> None:
    """Raises a UserError for a checkpoint of another config (config.json may be lost), or one that
    was trained with other frozen weights."""
    what = f"step {meta['step']} in {workdir}"
    _compare(what, meta["config"], run.config, may_differ)
    # Checkpoints of before 0.2 do not know their data; config.json does, and was compared.
    if "data" in meta["extra"]:
        _check_same_data(what, meta["config"], meta["extra"]["data"], run)
    there = meta["extra"].get("frozen", {})
    for name, now in run.family.frozen.items():
        # The last word is the checksum; what is before it, a path, may differ.
        if str(there.get(name)).split()[-1] != now.split()[-1]:
            raise UserError(
                f"{what} was trained with another '{name}': {there.get(name)} there, {now} now; "
                "bring it back, or choose another --workdir"
            )


def _compare(what: Any, there: dict, config: ConfigDict, may_differ: tuple[str, ...]) -> None:
    # Fields that are newer than the run had their defaults then.
    known = {**flatten(_all_defaults(config)), **flatten(there)}
    fields = _all_fields(config)
    idle, named = idle_defaults(config, fields), named_files(config, fields)
    changed = changed_keys(known, flatten(config), idle, named)
    changed = {k: v for k, v in changed.items() if not k.startswith(tuple(may_differ))}
    if changed:
        listed = "; ".join(
            f"config.{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items()
        )
        if "num_train_steps" in changed:
            listed += (
                f" (with config.optim.schedule={config.optim.schedule} the learning rate of every "
                "step depends on the last one)"
            )
        raise UserError(f"{what} belongs to another config ({listed}); choose another --workdir")


def _all_fields(config: ConfigDict) -> Fields:
    return merged(FIELDS, find_family(config.experiment).FIELDS)


def _all_defaults(config: ConfigDict) -> dict[str, Any]:
    """Returns the default of every field that a config has."""
    return defaults(_all_fields(config), like=config)


def trained_config(workdir: str | Path, config: ConfigDict) -> ConfigDict:
    """Returns the config of another workdir's run, to be restored where and as `config` says."""
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} holds no run: there is no {path}")
    there = ml_collections.ConfigDict(_with_tuples(_read(path)["config"]))
    _fill(there, ml_collections.ConfigDict(_all_defaults(there)))
    here = config.copy_and_resolve_references()
    for key in ("parallel", "num_devices", "eval", "sample"):
        there[key] = here[key]
    there.data.data_dir = here.data.data_dir
    there.num_seeds = 1
    return there


def _fill(config: ConfigDict, values: ConfigDict) -> None:
    for key, value in values.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ml_collections.ConfigDict):
            _fill(config[key], value)


def _with_tuples(value: Any) -> Any:
    """JSON's lists as tuples, which configs have instead."""
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def check_data(workdir: str | Path, run: Run) -> None:
    """Raises a UserError if the data are no longer what they were when the run started."""
    path = Path(workdir) / "config.json"
    if path.exists():
        content = _read(path)
        _check_same_data(workdir, content["config"], content.get("data", {}), run)


def _check_same_data(workdir: Any, config: dict, known: dict[str, Any], run: Run) -> None:
    """Compares the data of a run with what is known of them; paths may differ, checksums may not.

    Args:
      workdir: where the run is, for messages.
      config: that the data are known of.
      known: as `describe_data` returns it.
      run: as it is now.
    """
    described = describe_data(run)
    for key, now in described.items():
        then = known.get(key, now)
        accepted = (now["fingerprint"], now.get("former_fingerprint"))
        if then["fingerprint"] not in accepted or then["num_examples"] != now["num_examples"]:
            raise UserError(
                f"dataset '{now['name']}' ({now['split']}) has changed on disk since {workdir} "
                f"began: {then['num_examples']} examples, fingerprint "
                f"{then['fingerprint'][:12]} then, {now['num_examples']}, "
                f"{now['fingerprint'][:12]} now; bring it back, or choose another --workdir"
            )
    loader, files = run.config.data.loader, named_files(run.config, _all_fields(run.config))
    for key in moved_keys(flatten(config), flatten(run.config), files):
        roles = {"data.name": f"train/{loader}", "data.eval_name": f"eval/{loader}"}
        if files[key] != "frozen" and roles.get(key, f"picture/{key}") not in known:
            raise UserError(
                f"config.{key} is at another path than when {workdir} began, which does not know "
                f"its checksum with config.data.loader={loader}: resume with the loader or path "
                "that it had, or choose another --workdir"
            )


def describe_data(run: Run) -> dict[str, dict[str, Any]]:
    """Returns {"train/array": {...}, "eval/array": {...}, ...}: which data a run uses.

    The fingerprint is that of the decoded pixels, or, where they are never all decoded, of the
    files; so each loader has its own entry. Pictures that fields of the config name have one each.
    """
    described = {}
    for role, data in (("train", run.train_data), ("eval", run.eval_data)):
        entry = described[f"{role}/{run.config.data.loader}"] = {
            "name": data.name,
            "split": data.split,
            "num_examples": len(data),
            "fingerprint": data.fingerprint,
        }
        if data.former_fingerprint:
            entry["former_fingerprint"] = data.former_fingerprint
    values = flatten(run.config)
    for key, kind in named_files(run.config, _all_fields(run.config)).items():
        names = values[key] if isinstance(values[key], list) else [values[key]]
        if kind == "picture" and any(names):
            contents = [picture_source(name, "all").fingerprint for name in names]
            described[f"picture/{key}"] = {
                "name": ", ".join(names),
                "split": key,
                "num_examples": len(names),
                "fingerprint": sha256_of(" ".join(contents)),
            }
    return described


def write_config(workdir: str | Path, run: Run, source: dict[str, str]) -> None:
    """Writes config.json: the command's config file and overrides, the finished config, the data,
    the version of genjax."""
    path = Path(workdir) / "config.json"
    known = _read(path).get("data", {}) if path.exists() else {}
    config = json.loads(run.config.to_json())
    data = {**known, **describe_data(run)}
    version = {"genjax": genjax.__version__}
    files.write_json(path, {**source, **version, "config": config, "data": data})


def _read(path: Path) -> dict[str, Any]:
    content = files.read_json(path)
    if not content or not isinstance(content.get("config"), dict):
        raise UserError(f"{path} is damaged: mend it, or choose another --workdir")
    return content


# ---- Checkpoints and what was done at their steps ----


def open_checkpoints(
    config: ConfigDict, workdir: str | Path, read_only: bool = False
) -> Checkpoints:
    """Opens the checkpoints of a workdir, as the config wants them kept."""
    # A run that was stopped at an evaluation saved first: the numbers came later.
    lines = read_metrics(Path(workdir) / "metrics.jsonl")
    return Checkpoints(
        Path(workdir) / "checkpoints",
        **config.checkpoint.to_dict(),
        scores={x["step"]: x for x in lines if any(k.startswith("eval/") for k in x)},
        read_only=read_only,
        warn=warn,
    )


def open_log(workdir: Path, step: int) -> MetricLog | NoLog:
    """Opens the log of a run at `step`; processes that are not the main one have none."""
    return MetricLog(workdir, step, warn) if is_main() else NoLog()


def missed_at(run: Run, step: int, workdir: Path) -> tuple[str, ...]:
    """Returns which of "evaluate" and "draw" were due at `step`, where a run was stopped, and have
    not been done."""
    if step == 0:
        return ()
    lines = read_metrics(workdir / "metrics.jsonl") if is_main() else []
    evaluated = any(
        line["step"] == step and any(k.startswith("eval/") for k in line) for line in lines
    )
    drawn = is_main() and samples_png(workdir, step).exists()
    cadence, missed = run.cadence, []
    if cadence.due(cadence.eval_every_steps, step) and not from_main(int(evaluated)):
        missed.append("evaluate")
    due = run.family.sample and cadence.due(cadence.sample_every_steps, step)
    if due and not from_main(int(drawn)):
        missed.append("draw")
    return tuple(missed)


def samples_png(workdir: str | Path, step: int) -> Path:
    """Returns where the grid of samples of a step goes."""
    return Path(workdir) / "samples" / f"step_{step:08d}.png"
