"""report.json: the final numbers of a run and how they were computed."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import jax

from genjax import files, plots
from genjax.errors import UserError
from genjax.runner.figures import save_figures, through_training
from genjax.runner.position import Position
from genjax.runner.provenance import protocol_of
from genjax.runner.run import Run
from genjax.runner.terminal import say, unless_it_fails
from genjax.train import logs
from genjax.train.parallel import in_main, is_main


def finished_report(workdir: Path, step: int, num_train_steps: int) -> dict[str, Any] | None:
    """Returns the report of a run that is complete; None if there are steps left to train.

    Raises:
      UserError: the run is past its last step.
    """
    if step > num_train_steps:
        raise UserError(
            f"{workdir} is at step {step} already, past config.num_train_steps={num_train_steps}"
        )
    path = workdir / "report.json"
    if step < num_train_steps or not path.exists():
        return None
    report = files.read_json(path)
    if not report or report["step"] != step:
        return None
    say(f"{workdir} is complete; --mode=eval computes its numbers again")
    return report


def finish(
    run: Run,
    position: Position,
    workdir: Path,
    provenance: dict[str, Any],
    metrics: dict[str, float],
    speed: dict[str, float],
) -> dict[str, Any]:
    """Writes what the end of training leaves behind: export, report.json, curves.

    Returns:
      The report.
    """
    params = jax.eval_shape(run.init).params
    report = {
        **provenance,
        "step": position.step,
        **metrics,
        "protocol": protocol_of(run),
        "num_parameters": logs.count_parameters(params),
        **speed,
        "devices": f"{run.parallel.size} x {run.parallel.devices[0].device_kind}",
    }
    if run.family.export:
        tree = run.parallel.to_local(run.eval_tree(position.state))
        in_main(lambda: run.family.export(*tree, workdir))
    if is_main():
        files.write_json(workdir / "report.json", report)
        shape = run.family.sample_shape or tuple(run.config.data.image_shape)
        draw = {
            "curves": lambda: plots.curves(logs.read_metrics(workdir / "metrics.jsonl")),
            "through_training": lambda: through_training(workdir, shape),
        }
        pictures = {name: unless_it_fails(name, each) for name, each in draw.items()}
        drawn = {name: picture for name, picture in pictures.items() if picture is not None}
        save_figures(workdir / "figures", drawn, {**provenance, "step": position.step})
    print_report(workdir, report)
    return report


def summarize_seeds(
    reports: list[dict[str, Any]], workdir: Path, source: dict[str, str]
) -> dict[str, Any]:
    """Writes the report of several seeds: mean and standard deviation of every number."""
    summary = {**source, "num_seeds": len(reports)}
    for key in reports[0]:
        if key.startswith("eval/"):
            values = [report[key] for report in reports]
            summary[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "values": values,
            }
    if is_main():
        files.write_json(workdir / "report.json", summary)
    say(json.dumps(summary, indent=1))
    return summary


def print_report(workdir: str | Path, report: dict[str, Any]) -> None:
    """Prints the numbers of a report."""
    say(f"step {report['step']}:\n{format_numbers(report)}\nresults saved to {workdir}")


def format_numbers(report: dict[str, Any]) -> str:
    """Formats the "eval/..." numbers of a report, one a line; without those of single latents."""
    numbers = {
        name: value
        for name, value in report.items()
        if name.startswith("eval/") and not re.search(r"_(latent|level)_\d\d$", name)
    }
    width = max(map(len, numbers), default=0)
    return "\n".join(f"  {name:{width}}  {value:.5g}" for name, value in numbers.items())
