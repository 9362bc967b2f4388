"""A trained run from its workdir."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from genjax.errors import UserError
from genjax.runner.family import completed
from genjax.runner.run import Run
from genjax.runner.terminal import say
from genjax.runner.workdir import (
    check_data,
    check_folder,
    check_restored,
    check_workdir,
    open_checkpoints,
)
from genjax.train.parallel import main_first
from genjax.train.state import TrainState


def restored_run(
    config: ConfigDict,
    workdir: str | Path,
    step: str,
    may_differ: tuple[str, ...] = ("eval.",),
) -> tuple[Run, TrainState, int]:
    """Restores a checkpoint.

    Where there is no run yet, but a config.init_from, the result is what it would start with.

    Args:
      config: of the run.
      workdir: where it is.
      step: a number, "latest" or "best".
      may_differ: beginnings of keys that may differ from those of training.

    Returns:
      (run, state on the devices, step).

    Raises:
      UserError: no run, no such checkpoint, or one of another config.
    """
    if config.get("init_from") and not _holds_run(config, workdir, may_differ):
        check_folder(Path(workdir))
        run = Run.build(completed(config))
        state = run.start()
        say(f"{workdir} holds no run yet: using the parameters that it would start with")
        main_first(lambda: Path(workdir).mkdir(parents=True, exist_ok=True))
        return run, state, 0
    run, state = saved_state(config, workdir, step, may_differ)
    return run, run.full_state(run.parallel.from_global(state)), int(state.step)


def saved_state(
    config: ConfigDict, workdir: str | Path, step: str, may_differ: tuple[str, ...]
) -> tuple[Run, Any]:
    """Restores a checkpoint as it was saved: (run, arrays of the run without frozen parts)."""
    workdir, config = Path(workdir), completed(config)
    if not _holds_run(config, workdir, may_differ):
        raise UserError(f"{workdir} holds no run; train it first, or name another --workdir")
    run = Run.build(config)
    check_data(workdir, run)
    checkpoints = open_checkpoints(config, workdir, read_only=True)
    if checkpoints.empty():
        raise UserError(f"{workdir} has no checkpoint yet; train it first")
    chosen = {"latest": lambda: None, "best": checkpoints.best_step}.get(step, lambda: int(step))
    state, meta = checkpoints.restore(run.template(), chosen())
    check_restored(workdir, meta, run, may_differ)
    return run, state


def _holds_run(config: ConfigDict, workdir: str | Path, may_differ: tuple[str, ...]) -> bool:
    if config.num_seeds > 1:
        raise UserError(
            f"config.num_seeds={config.num_seeds}: name one of them, for instance without :seeds "
            f"and with --config.seed={config.seed} --workdir={workdir}/seed_{config.seed}"
        )
    return check_workdir(Path(workdir), completed(config), may_differ)
