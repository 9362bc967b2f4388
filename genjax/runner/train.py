"""--mode=train: one run, a run for each seed, or what a family does in its own way."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from genjax.runner.family import completed, optional
from genjax.runner.report import summarize_seeds
from genjax.runner.terminal import say
from genjax.runner.trainer import train_run
from genjax.train.signals import StopOnSignal, Stopped


def train(config: ConfigDict, workdir: str | Path, source: dict[str, str]) -> dict[str, Any] | None:
    """Trains, evaluates and draws; running it again resumes.

    Args:
      config: of a run.
      workdir: where everything goes, see the README.
      source: {"config_file": "configs/x.py:arg", "arguments": those of launch.py}, for the records.

    Returns:
      The final report, or None when a signal stopped the run early.
    """
    with StopOnSignal() as signals:
        # Processes stop together, at a step: one that stopped on its own would break the others.
        signals.something_to_save = jax.process_count() > 1
        try:
            return _train_seeds(config, Path(workdir), source, signals)
        except Stopped as stop:
            by = signals.received or "another process's signal"
            say(f"stopped by {by} at step {stop.step}, saved; the same command resumes")
            return None


def _train_seeds(
    config: ConfigDict, workdir: Path, source: dict[str, str], signals: StopOnSignal
) -> dict[str, Any]:
    """Trains one run, or a run for each seed with a report of means and deviations."""
    if config.num_seeds == 1:
        return _train_family(config, workdir, source, signals)
    reports = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        one = config.copy_and_resolve_references()
        one.seed, one.num_seeds = seed, 1
        reports.append(_train_family(one, workdir / f"seed_{seed}", source, signals))
    return summarize_seeds(reports, workdir, source)


def _train_family(
    config: ConfigDict, workdir: Path, source: dict[str, str], signals: StopOnSignal
) -> dict[str, Any]:
    """Trains a run as its family does: some make several runs of one config, or none."""

    def train_one(config, workdir, source):
        return train_run(config, workdir, source, signals)

    in_its_own_way = optional(config, "train")
    if in_its_own_way:
        return in_its_own_way(config, workdir, source, train_one)
    return train_one(completed(config), workdir, source)
