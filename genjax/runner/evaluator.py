"""Numbers of a trained model over a split, samples, and distances of samples to real images.

Each class compiles once and is called with `tree`, (params, model_state) on the devices as
`Run.eval_tree` returns it, and with `stop`, () -> bool, which is asked before each batch: once it
is true, in any process, the result is None.
"""

import collections
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import plots, rng
from genjax.data.dataset import eval_batches
from genjax.errors import RunError
from genjax.runner.judge import IN_LOOP
from genjax.runner.run import Run
from genjax.runner.terminal import unless_it_fails, warn
from genjax.train.parallel import Mapped, Parallel, is_main

Tree = tuple[Any, Any]
Stop = Callable[[], bool]
Outcome = tuple[dict[str, float], dict[str, np.ndarray]]  # {"eval/...": number}, {name: picture}
Program = tuple[Callable, tuple[Any, ...]]  # a jitted function, and the shapes of its arguments


def never() -> bool:
    """Returns False: a `stop` for what is not to be stopped."""
    return False


class Evaluator:
    """The family's own numbers over the whole evaluation split.

    Noise is keyed by an example's place in the split, so the numbers do not depend on the batch
    size or the devices.

    Args:
      run: whose family and data it is.
    """

    def __init__(self, run: Run):
        self._run = run
        self._mapped = run.parallel.compile_map(self._step)
        self._size = run.parallel.round_up(run.config.eval.batch_size)

    def program(self, tree: Tree) -> Program:
        """Returns the program of a batch, and the shapes that it is called with.

        Args:
          tree: shapes of (params, model_state).
        """
        rows = np.arange(self._size) % len(self._run.eval_data)
        batch = {**self._run.eval_data.batch(rows, rows), "stop": np.zeros(self._size, bool)}
        return program_of(self._run.parallel, self._mapped, tree, batch)

    def _step(self, tree: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        rngs = rng.Rngs(jax.random.key(0), 0, batch["index"])
        stop = batch.pop("stop")
        prepared = self._run.transform(batch, rngs, train=False)
        return {**self._run.family.evaluate(*tree, prepared, rngs), "stop": stop}

    def __call__(self, tree: Tree, stop: Stop = never) -> Outcome | None:
        """Returns (numbers, pictures)."""
        family, parts = self._run.family, collections.defaultdict(list)
        rows = self._run.parallel.rows(self._size)
        for batch in eval_batches(self._run.eval_data, self._size, rows):
            mask = batch.pop("mask")
            flags = np.full(len(batch["index"]), stop())
            values = self._mapped(tree, {**batch, "stop": flags})
            if values.pop("stop").any():
                return None
            for name, value in values.items():
                parts[name].append(value[mask])
        values = {name: np.concatenate(part) for name, part in parts.items()}
        numbers = family.summarize(values)
        pictures = {}
        if family.evaluation_figures and is_main():
            draw = lambda: family.evaluation_figures(values)
            try:
                pictures = unless_it_fails("the figures of the evaluation", draw) or {}
            except plots.PixelsNotFinite as error:  # the numbers say so, too
                warn(str(error))
        return {f"eval/{name}": float(number) for name, number in numbers.items()}, pictures


class Sampler:
    """Generated images; image i of a seed is always the same one.

    With classes, image i is of class i modulo their number, or all are of `config.sample.label`.

    Args:
      run: whose family samples.

    Attributes:
      batch_size: images sampled at a time.
    """

    def __init__(self, run: Run):
        self._run = run
        self._mapped = run.parallel.compile_map(self._step)
        self.batch_size = sampler_batch_size(run)

    def program(self, tree: Tree) -> Program:
        """Returns the program of a batch, as `Evaluator.program` does."""
        batch = self._batch(np.arange(self.batch_size, dtype=np.int32), 0, False)
        return program_of(self._run.parallel, self._mapped, tree, batch)

    def _batch(self, index: np.ndarray, seed: int, stop: bool) -> dict[str, np.ndarray]:
        num_classes = len(self._run.train_data.class_names)
        return {
            "index": index,
            "seed": np.full(len(index), seed, np.uint32),
            "label": sampled_labels(self._run.config, index, num_classes),
            "stop": np.full(len(index), stop),
        }

    def _step(self, tree: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        key = rng.stream(jax.random.key(batch["seed"][0]), "sample")
        keys = rng.per_example(key, batch["index"])
        labels = [batch["label"]] if self._run.family.sample_takes_labels else []
        images = self._run.family.sample(*tree, keys, *labels)
        return {"image": images, "stop": batch["stop"]}

    def __call__(
        self, tree: Tree, seed: int, indices: np.ndarray | list[int], stop: Stop = never
    ) -> np.ndarray | None:
        """Returns the images `indices` of a seed, uint8 [N, H, W, C].

        Raises:
          PixelsNotFinite: an image has NaN or infinity.
        """
        run, size, out = self._run, self.batch_size, []
        rows = run.parallel.rows(self.batch_size)
        for start in range(0, len(indices), size):
            # Always full batches: how many images are wanted does not change how one is computed.
            index = np.resize(np.asarray(indices[start : start + size], np.int32), size)[rows]
            sampled = self._mapped(tree, self._batch(index, seed, stop()))
            if sampled["stop"].any():
                return None
            wanted = np.asarray(indices[start : start + size])
            images = sampled["image"][: len(wanted)]
            out.append(plots.to_uint8(images, f"images of seed {seed}", wanted))
        return np.concatenate(out)


def program_of(parallel: Parallel, mapped: Mapped, tree: Tree, batch: Any) -> Program:
    """Returns the program of a mapped function, and the shapes that it is called with."""
    return mapped.program, (parallel.abstract_state(tree), parallel.abstract_batch(batch))


def sampler_batch_size(run: Run) -> int:
    """Returns how many images a sampler draws at a time: a multiple of the devices."""
    default = 64 if run.parallel.platform == "cpu" else 500
    return run.parallel.round_up(run.config.sample.batch_size or default)


def sampled_labels(config: ConfigDict, index: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns int32 [n], the classes of the images `index` of a seed."""
    if config.sample.label >= 0:
        return np.full(len(index), config.sample.label, np.int32)
    return np.asarray(index, np.int32) % max(num_classes, 1)


class SampleJudge:
    """The run's judge, applied to images that its family samples.

    Args:
      run: one that has a judge.
    """

    def __init__(self, run: Run):
        self._run, self._sampler = run, Sampler(run)

    def __call__(
        self,
        tree: Tree,
        num_images: int,
        metrics: tuple[str, ...] | None = None,
        stop: Stop = never,
    ) -> Outcome | None:
        """Returns (numbers, pictures); `metrics` None stands for config.eval.metrics."""
        try:
            return self._run.judge(self._batches(tree, num_images, stop), num_images, metrics)
        except _Stopped:
            return None

    def _batches(self, tree: Tree, num_images: int, stop: Stop) -> Iterator[np.ndarray]:
        size, seed = self._sampler.batch_size, self._run.config.eval.seed
        for start in range(0, num_images, size):
            index = np.arange(start, min(start + size, num_images))
            images = self._sampler(tree, seed, index, stop)
            if images is None:
                raise _Stopped
            yield images


class _Stopped(Exception):
    """A signal came while images were sampled."""


class FullEvaluator:
    """`Evaluator`, and `SampleJudge` where config.eval asks for samples.

    Args:
      run: whose numbers they are.
    """

    def __init__(self, run: Run):
        self._run, self._config = run, run.config.eval
        self._policy = run.config.nonfinite.policy
        self._evaluator = Evaluator(run)
        self._judge = SampleJudge(run) if run.judge else None

    def __call__(self, tree: Tree, last: bool, stop: Stop = never) -> Outcome | None:
        """Returns (numbers, pictures).

        Args:
          tree: (params, model_state).
          last: whether it is the end of a run, or an evaluation on its own: then all numbers of
            config.eval are computed, before that the Frechet distance alone.
          stop: see the module.
        """
        outcome = self._evaluator(tree, stop)
        if outcome is None:
            return None
        numbers, pictures = outcome
        requested = [(self._config.num_samples_in_loop, IN_LOOP)]
        requested += [(self._config.num_samples, None)] * last
        for num_images, metrics in requested:
            if num_images:
                judged = self._judged(tree, num_images, metrics, stop)
                if judged is None:
                    return None
                numbers, pictures = {**numbers, **judged[0]}, {**pictures, **judged[1]}
        return numbers, pictures

    def _judged(
        self, tree: Tree, num_images: int, metrics: tuple[str, ...] | None, stop: Stop
    ) -> Outcome | None:
        """Judges samples; where some are not finite and the config lets that pass, says so."""
        try:
            return self._judge(tree, num_images, metrics, stop)
        except plots.PixelsNotFinite as error:
            if self._policy == "raise":
                raise
            warn(str(error))
        names = self._run.judge.names(num_images, metrics)
        return {f"eval/{name}": math.nan for name in names}, {}


def check_finite(step: int, metrics: dict[str, float], policy: str) -> None:
    """Warns of metrics that are not finite.

    Raises:
      RunError: there are some, and the policy, config.nonfinite.policy, is "raise".
    """
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not wrong:
        return
    problem = f"step {step}: not finite: {', '.join(wrong)}"
    if policy == "raise":
        raise RunError(f"{problem} (with config.nonfinite.policy=skip the run goes on)")
    warn(problem)
