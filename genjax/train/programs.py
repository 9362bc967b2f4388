"""Compiled programs: what one costs, and a step that keeps its own."""

import collections
import math
import re
from collections.abc import Mapping
from typing import Any

from jax.extend import core

from genjax.train.chips import chip_of

# The results of a collective in a compiled program's text, `bf16[8,64]{1,0}` or a tuple of such.
# On some devices a collective is a pair of `start` and `done`, of which the first is counted.
_COLLECTIVE = re.compile(
    r"= (?P<results>\(.*?\)|\S+) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
# On a TPU a reduce-scatter is a computation of an all-reduce and slices, which is fused to one.
_FUSED = re.compile(r"^%?all-reduce-scatter[^\n]* -> ([^\n]*) \{\n.*?^\}", re.M | re.S)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_BITS = {"pred": 8}


class CompiledStep:
    """A step that is compiled when it is first called, once; its program is kept.

    Args:
      jitted: of `jax.jit` or `jax.pmap`; always called with arguments of the same shapes.

    Attributes:
      costs: of `costs_of`, with the "matrix_flops" of `matrix_flops` where the step can be traced
        (under `pmap` it cannot); {} before the first call.
    """

    def __init__(self, jitted: Any):
        self._jitted, self._program = jitted, None
        self.costs: dict[str, float] = {}

    def __call__(self, *args: Any) -> Any:
        """Calls the step."""
        if self._program is None:
            traced = self._jitted.trace(*args) if hasattr(self._jitted, "trace") else None
            lowered = traced.lower() if traced else self._jitted.lower(*args)
            self._program = lowered.compile()
            self.costs = costs_of(self._program)
            if traced:
                self.costs["matrix_flops"] = matrix_flops(traced.jaxpr)
        return self._program(*args)


def costs_of(program: Any) -> dict[str, float]:
    """Returns what the compiler says of a program, as far as it says it, on one device.

    Args:
      program: of `lower(...).compile()`.

    Returns:
      "flops" and "bytes" (read and written), in which a loop counts as one pass of its body, and
      "memory": the most bytes that its arguments, results and temporaries take together.
    """
    costs = {}
    analysis = program.cost_analysis()
    if isinstance(analysis, list):  # one a program, of which there is one
        analysis = analysis[0] if analysis else None
    for name, key in (("flops", "flops"), ("bytes", "bytes accessed")):
        if analysis and analysis.get(key, 0) > 0:
            costs[name] = float(analysis[key])
    memory = program.memory_analysis()
    if memory is not None:
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes
        total += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        costs["memory"] = float(max(total, getattr(memory, "peak_memory_in_bytes", 0) or 0))
    return costs


def flops_of(costs: Mapping[str, Any], num_devices: int) -> float:
    """Returns the FLOPs of a program on one device; 0 where nothing is known.

    The larger one of the compiler's "flops", in which a loop counts once, and the device's share of
    the "matrix_flops", which leave out all but matrix products and convolutions.
    """
    return max(costs.get("flops", 0.0), costs.get("matrix_flops", 0.0) / num_devices)


def step_report(
    costs: dict[str, float], steps_per_second: float, device_kind: str, num_devices: int = 1
) -> dict[str, float]:
    """Returns a step's costs as a report has them: those of one device.

    Args:
      costs: of `CompiledStep`.
      steps_per_second: measured.
      device_kind: what JAX calls the device.
      num_devices: that share the step.

    Returns:
      "step_flops", "step_memory_bytes" and, of an accelerator whose peak is known, "mfu": the
      share of its bfloat16 peak that those FLOPs are.
    """
    report, flops = {}, flops_of(costs, num_devices)
    if flops:
        report["step_flops"] = flops
    if "memory" in costs:
        report["step_memory_bytes"] = costs["memory"]
    chip = chip_of(device_kind)
    if chip and flops:
        report["mfu"] = flops * steps_per_second / chip.flops
    return report


def collectives_of(text: str) -> dict[str, dict[str, int]]:
    """Counts the communication in a compiled program's text.

    Returns:
      {kind: {"count", "bytes" of its results on one device}}.
    """
    found = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    text = _FUSED.sub(r"= \1 reduce-scatter()", text)
    for match in _COLLECTIVE.finditer(text):
        sizes = [_bytes(*array) for array in _ARRAY.findall(match["results"])]
        # A start returns its operands, too: the result is the larger half, or one of two halves.
        moved = max(sizes, default=0) if match["start"] and len(sizes) == 2 else sum(sizes)
        found[match["kind"]]["count"] += 1
        found[match["kind"]]["bytes"] += moved
    return dict(found)


def _bytes(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(re.search(r"\d+", dtype)[0])
    return math.prod(map(int, filter(None, shape.split(",")))) * bits // 8


def matrix_flops(jaxpr: Any) -> float:
    """Counts the FLOPs of matrix products and convolutions in a traced function, on all devices.

    A scan counts as often as it runs; a `while` loop and the branches of a condition, whose number
    of passes is not known, count once and as the largest.

    Args:
      jaxpr: closed or not.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            total += _convolution_flops(equation)
        else:
            inner = [matrix_flops(sub) for value in params.values() for sub in _subprograms(value)]
            if name == "cond":
                total += max(inner, default=0.0)
            else:
                total += sum(inner) * (params["length"] if name == "scan" else 1)
    return total


def _convolution_flops(equation: Any) -> float:
    """Counts products with what is there, not those with the zeros of dilation.

    Of a dilated input only one in prod(dilation) taps meets a number, of a dilated kernel, in a
    kernel's gradient, the kernel's own taps do.
    """
    numbers, params = equation.params["dimension_numbers"], equation.params
    right = equation.invars[1].aval.shape
    out = equation.outvars[0].aval.shape
    taps = math.prod(right[axis] for axis in numbers.rhs_spec[2:])
    channels = right[numbers.rhs_spec[1]]  # of one group
    return 2.0 * math.prod(out) * taps * channels / math.prod(params["lhs_dilation"])


def _subprograms(value: Any) -> list[Any]:
    """Returns the functions among an equation's parameters."""
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        return [value]
    if isinstance(value, list | tuple):
        return [sub for item in value for sub in _subprograms(item)]
    return []
