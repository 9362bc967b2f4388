"""What configs share: datasets as the experiments use them, and schedules of a run."""

from ml_collections import ConfigDict

from genjax.runner.variants import variants

__all__ = ["on_cifar10", "on_mnist", "train_for", "variants"]


def on_mnist(config: ConfigDict, binarized: bool = False, num_samples: int = 10_000) -> ConfigDict:
    """MNIST, judged by 10,000 samples; `binarized`: binary pixels, drawn anew in each step."""
    config.data.update(name="mnist", image_shape=(28, 28, 1))
    if binarized:
        config.data.pixels = "binarized_dynamic"
    config.eval.num_samples = num_samples
    return config


def on_cifar10(config: ConfigDict, flip: str = "random", num_samples: int = 10_000) -> ConfigDict:
    """CIFAR-10 at 32x32 with flips, judged by 10,000 samples through `cnn_cifar10`."""
    config.data.update(name="cifar10", image_shape=(32, 32, 3), flip=flip)
    if num_samples:
        config.eval.update(num_samples=num_samples, net="cnn_cifar10")
    return config


def train_for(
    config: ConfigDict,
    num_steps: int,
    *,
    batch_size: int,
    log: int,
    every: int,
    evaluate: int | None = None,
    sample: int | None = None,
    checkpoint: int | None = None,
) -> ConfigDict:
    """Sets the length of a run and what happens every so many steps.

    Args:
      config: changed in place and returned.
      num_steps: training steps.
      batch_size: images per step.
      log: steps between two lines of metrics.
      every: steps between two evaluations, grids of samples, checkpoints; 0: only at the end.
      evaluate, sample, checkpoint: where one of these is not `every`.
    """
    pick = lambda value: every if value is None else value
    config.update(
        num_train_steps=num_steps,
        batch_size=batch_size,
        log_every_steps=log,
        eval_every_steps=pick(evaluate),
        sample_every_steps=pick(sample),
        checkpoint_every_steps=pick(checkpoint),
    )
    return config
