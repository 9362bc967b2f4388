"""What a compiled program costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.train import programs
from genjax.train.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    "kind, name",
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_device_is_known_by_its_kind(kind, name):
    assert chip_of(kind) is CHIPS[name]


def test_what_is_not_in_the_table_has_no_peak():
    assert chip_of("cpu") is None and chip_of("NVIDIA A100-SXM4-40GB") is None


def count(f, *shapes):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return programs.matrix_flops(jax.make_jaxpr(f)(*args))


def test_flops_of_a_product_are_two_for_each_multiplication():
    assert count(lambda x, y: x @ y, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    batched = lambda x, y: jnp.einsum("bij,bjk->bik", x, y)
    assert count(batched, (2, 3, 5), (2, 5, 7)) == 2 * 2 * 3 * 5 * 7


def test_a_scan_counts_as_often_as_it_runs_and_a_condition_as_its_larger_branch():
    def scanned(x, y):
        return jax.lax.scan(lambda c, _: (c @ y, None), x, None, length=11)[0]

    assert count(scanned, (3, 5), (5, 5)) == 11 * 2 * 3 * 5 * 5
    branches = lambda x, y: jax.lax.cond(x[0, 0] > 0, lambda: x @ y @ y, lambda: x @ y)
    assert count(branches, (3, 5), (5, 5)) == 2 * 2 * 3 * 5 * 5


def convolution(x, kernel, strides=(1, 1), groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def test_flops_of_a_convolution_are_those_of_its_taps():
    assert count(convolution, (2, 8, 8, 4), (3, 3, 4, 6)) == 2 * (2 * 8 * 8 * 6) * (9 * 4)
    grouped = lambda x, k: convolution(x, k, groups=4)
    assert count(grouped, (2, 8, 8, 4), (3, 3, 1, 4)) == 2 * (2 * 8 * 8 * 4) * 9


def test_each_gradient_of_a_strided_convolution_costs_what_it_costs_itself():
    # Both gradients multiply the same pairs of numbers; the zeros between strides are not counted.
    forward = lambda x, k: convolution(x, k, strides=(2, 2))
    once = count(forward, (2, 8, 8, 4), (3, 3, 4, 6))
    assert once == 2 * (2 * 4 * 4 * 6) * (9 * 4)
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))
    of_x = jax.linear_transpose(lambda x: forward(x, kernel), x)
    of_kernel = jax.linear_transpose(lambda kernel: forward(x, kernel), kernel)
    assert count(of_x, (2, 4, 4, 6)) == count(of_kernel, (2, 4, 4, 6)) == once


def test_costs_of_a_compiled_program():
    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    costs = programs.costs_of(jax.jit(lambda x, y: x @ y).lower(shape, shape).compile())
    assert costs["flops"] == pytest.approx(2 * 64**3, rel=0.02)
    assert costs["memory"] >= 3 * 4 * 64 * 64


def test_a_step_is_compiled_once_and_keeps_its_costs():
    traced = []

    @jax.jit
    def double(x):
        traced.append(x.shape)
        return 2 * x

    step = programs.CompiledStep(double)
    assert step.costs == {}
    for _ in range(3):
        np.testing.assert_array_equal(step(jnp.ones(5)), 2 * np.ones(5))
    assert traced == [(5,)] and step.costs["memory"] > 0


def test_a_report_has_the_utilisation_of_chips_whose_peak_is_known_only():
    costs = {"flops": 1e12, "memory": 5e9}
    expected = {"step_flops": 1e12, "step_memory_bytes": 5e9}
    assert programs.step_report(costs, 10.0, "cpu") == expected
    on_chip = programs.step_report(costs, 10.0, "TPU v5 lite")
    assert on_chip == {**expected, "mfu": pytest.approx(10e12 / 197e12)}
    assert programs.step_report({}, 10.0, "TPU v5 lite") == {}


def test_loops_that_the_compiler_counts_once_count_as_traced():
    @jax.jit
    def step(x, y):
        return jax.lax.scan(lambda c, _: (c @ y, None), x, None, length=11)[0]

    compiled = programs.CompiledStep(step)
    compiled(jnp.ones((64, 64)), jnp.ones((64, 64)))
    flops = programs.step_report(compiled.costs, 1.0, "cpu")["step_flops"]
    assert flops == pytest.approx(11 * 2 * 64**3, rel=0.02)
    assert programs.flops_of({"flops": 3.0, "matrix_flops": 40.0}, 8) == 5.0


def test_collectives_are_counted_by_kind_and_bytes():
    text = """
  %all-reduce.1 = f32[8,64]{1,0} all-reduce(f32[8,64]{1,0} %x), replica_groups={{0,1}}
  %all-reduce.2 = (bf16[10]{0}, f32[]) all-reduce(bf16[10]{0} %y, f32[] %z), to_apply=%add
  %ag = (f32[4]{0}, f32[32]{0}) all-gather-start(f32[4]{0} %w), dimensions={0}
  %agd = f32[32]{0} all-gather-done((f32[4]{0}, f32[32]{0}) %ag)
  %add = f32[8,64]{1,0} add(f32[8,64]{1,0} %all-reduce.1, f32[8,64]{1,0} %all-reduce.1)
"""
    assert programs.collectives_of(text) == {
        "all-reduce": {"count": 2, "bytes": 4 * 8 * 64 + 2 * 10 + 4},
        "all-gather": {"count": 1, "bytes": 4 * 32},
    }


def test_a_tpus_reduce_scatter_is_one_and_no_all_reduce():
    text = """
%all-reduce-scatter.6 (input_0: f32[16,8], input_1: f32[4]) -> (f32[2,8], f32[1]) {
  %all-reduce.7 = (f32[16,8]{1,0}, f32[4]{0}) all-reduce(%input_0, %input_1), to_apply=%add
  ROOT %tuple = (f32[2,8]{1,0}, f32[1]{0}) tuple(%slice.1, %slice.2)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %all-reduce.8 = f32[4]{0} all-reduce(%x), to_apply=%add
}
"""
    assert programs.collectives_of(text) == {
        "reduce-scatter": {"count": 1, "bytes": 4 * (16 + 1)},
        "all-reduce": {"count": 1, "bytes": 16},
    }
