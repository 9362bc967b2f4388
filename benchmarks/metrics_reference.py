"""Compares `genjax.metrics` with other people's implementations, on the same random features.

torch-fidelity (Fréchet by sqrtm, kernel distance, inception score, precision and recall),
torchmetrics (Fréchet by eigenvalues of C1 C2) and prdc (all four of the manifold metrics).
Prints a table; exit code 1 when a difference is out of tolerance.

pip install torch torchvision 'torch-fidelity>=0.4' torchmetrics prdc
python -m benchmarks.metrics_reference [--quick]

Runs in any Python that has these packages: the modules of this project that it needs import NumPy
alone.
"""

import argparse
import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Iterator

import numpy as np
import prdc
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
from torchmetrics.image.fid import FrechetInceptionDistance

from genjax.metrics.frechet import Moments, frechet_distance
from genjax.metrics.inception_score import InceptionScore
from genjax.metrics.kernel import kernel_distance
from genjax.metrics.manifold import density_coverage, precision_recall

SIZES = ((2000, 2000, 64), (3000, 2000, 256), (5000, 5000, 512))  # real, generated, dimensions
# Relative. The others are counts over n, equal but for the float32 in which torch-fidelity divides.
TOLERANCES = {"frechet": 1e-4, "kernel": 1e-3}
DEFAULT_TOLERANCE = 1e-6

Row = tuple[str, str, float, float]  # metric, package, its value, our value


def features(m: int, n: int, d: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields two sets like those of a network: not negative, of falling spread, float32."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) * np.arange(1, d + 1) ** -0.5
    real, generated = rng.normal(size=(m, d)) @ mix.T, rng.normal(size=(n, d)) @ mix.T
    generated = 0.9 * generated + 0.1
    return (np.maximum(x, 0).astype(np.float32) for x in (real, generated))


def frechet_by_torchmetrics(real: np.ndarray, generated: np.ndarray) -> float:
    """Computes the Fréchet distance of features by torchmetrics."""

    class Identity(torch.nn.Module):
        num_features = real.shape[1]

        def forward(self, x):
            return x

    metric = FrechetInceptionDistance(feature=Identity())
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return metric.compute().item()


def rows(real: np.ndarray, generated: np.ndarray) -> Iterator[Row]:
    """Computes every metric of two sets of features, by every package that has it."""
    yield from distance_rows(real, generated)
    yield from manifold_rows(real, generated)


def distance_rows(real: np.ndarray, generated: np.ndarray) -> Iterator[Row]:
    """Computes Fréchet and kernel distance, and the inception score."""
    tensors = [torch.from_numpy(x).double() for x in (real, generated)]
    ours = frechet_distance(Moments.of(real), Moments.of(generated))
    statistics = [metric_fid.fid_features_to_statistics(x) for x in tensors]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    yield "frechet", "torch_fidelity", next(iter(theirs.values())), ours
    yield "frechet", "torchmetrics", frechet_by_torchmetrics(real, generated), ours

    # One subset of all features; the sets have to be of one size then.
    n = min(len(real), len(generated))
    options = {"kid_subsets": 1, "kid_subset_size": n, "kid_degree": 3, "kid_gamma": None}
    options |= {"kid_coef0": 1, "rng_seed": 0, "verbose": False}
    theirs = metric_kid.kid_features_to_metric(*(x[:n] for x in tensors), **options)
    ours, _ = kernel_distance(real[:n], generated[:n])
    yield "kernel", "torch_fidelity", theirs[metric_kid.KEY_METRIC_KID_MEAN], ours

    theirs = metric_isc.isc_features_to_metric(tensors[0], shuffle=False)
    ours, _ = InceptionScore.start(*real.shape).update(real).score()
    theirs = theirs[metric_isc.KEY_METRIC_ISC_MEAN]
    yield "inception score", "torch_fidelity", theirs, ours


def manifold_rows(real: np.ndarray, generated: np.ndarray) -> Iterator[Row]:
    """Computes precision, recall, density and coverage."""
    tensors = [torch.from_numpy(x).double() for x in (real, generated)]
    precision, recall = precision_recall(real, generated)
    options = {"prc_neighborhood": 3, "prc_batch_size": 10000, "save_cpu_ram": False}
    # Since 0.4 the generated features come first.
    theirs = metric_prc.prc_features_to_metric(*tensors[::-1], verbose=False, **options)
    yield "precision", "torch_fidelity", theirs[metric_prc.KEY_METRIC_PRECISION], precision
    yield "recall", "torch_fidelity", theirs[metric_prc.KEY_METRIC_RECALL], recall
    with contextlib.redirect_stdout(io.StringIO()):
        of_3, of_5 = (prdc.compute_prdc(*(x.numpy() for x in tensors), k) for k in (3, 5))
    density, coverage = density_coverage(real, generated)
    yield "precision", "prdc", of_3["precision"], precision
    yield "recall", "prdc", of_3["recall"], recall
    yield "density", "prdc", of_5["density"], density
    yield "coverage", "prdc", of_5["coverage"], coverage


def main() -> None:
    """Prints the table; exits with 1 where a difference is out of tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest features alone")
    sizes = SIZES[:1] if parser.parse_args().quick else SIZES
    packages = ("numpy", "torch", "torch_fidelity", "torchmetrics", "prdc")
    print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages))
    print(f"{'real/generated/d':17} {'metric':15} {'by':14} {'theirs':>14} {'ours':>14} relative")
    failed = False
    for size in sizes:
        for metric, package, theirs, ours in rows(*features(*size)):
            difference = abs(ours - theirs) / abs(theirs)
            bad = not difference <= TOLERANCES.get(metric, DEFAULT_TOLERANCE)
            failed |= bad
            name = "/".join(map(str, size))
            values = f"{theirs:14.8g} {ours:14.8g} {difference:.1e}{' OUT' if bad else ''}"
            print(f"{name:17} {metric:15} {package:14} {values}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
