"""What benchmarks share to measure seconds."""

import time
from collections.abc import Callable, Mapping
from typing import Any


def take_turns(
    contestants: Mapping[Any, Callable[[], float]], turns: int
) -> dict[Any, list[float]]:
    """Calls the contestants one after another, `turns` times each.

    Args:
      contestants: {name: a function that does its work and returns the seconds that it took}.
      turns: of each.

    Returns:
      {name: the seconds of each turn}.
    """
    seconds = {name: [] for name in contestants}
    for _ in range(turns):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    return seconds


def seconds_without_compiling(function: Callable[[], Any]) -> float:
    """Returns the seconds of a second call; the first one compiles.

    Args:
      function: returns when its work is done, so JAX's arrays must be ready.
    """
    function()
    return seconds_of(function)


def seconds_of(function: Callable[[], Any]) -> float:
    """Returns the seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
