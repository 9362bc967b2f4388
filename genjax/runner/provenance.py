"""What files record about where they come from, and how numbers were computed."""

from typing import Any

from genjax.runner.run import Run


def provenance_of(run: Run, source: dict[str, str]) -> dict[str, Any]:
    """Returns what PNG files and report.json record about where they come from."""
    return {**source, "train_seed": run.config.seed, "parameters": which_parameters(run)}


def which_parameters(run: Run) -> str:
    """Returns "ema" or "raw": which parameters are evaluated and sampled."""
    ema = run.config.ema
    return "ema" if ema.decay > 0 or ema.half_life_images > 0 else "raw"


def protocol_of(run: Run) -> dict[str, Any]:
    """Returns how the numbers of a report were computed: data, pixels, parameters, samples."""
    data, evaluation = run.config.data, run.config.eval
    pixels = "binarized_static" if data.pixels.startswith("binarized") else data.pixels
    protocol = {
        "data": f"{run.eval_data.name}:{run.eval_data.split}",
        "data_sha256": run.eval_data.fingerprint,
        "num_examples": len(run.eval_data),
        "num_skipped": len(run.eval_data.skipped),
        "pixels": pixels,
        "parameters": which_parameters(run),
    }
    if run.family.frozen:
        protocol["frozen"] = run.family.frozen
    if run.judge:
        count = evaluation.num_samples or evaluation.num_samples_in_loop
        protocol["samples"] = run.judge.describe(count, seed=evaluation.seed)
    return protocol
