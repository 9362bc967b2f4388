import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from genjax.errors import UserError
from genjax.files import write_json
from genjax.runner.run import _computes_in_half
from genjax.train import canary
from genjax.train.parallel import FUSION_FLAG, leave_out_wrong_fusions

# As users compile it: without the fusions, then with them. Each in a process of its own.
PROGRAMS = """
import os, sys
os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
from genjax.train.canary import wrong_programs
from genjax.train.parallel import leave_out_wrong_fusions

if sys.argv[1] == "without":
    leave_out_wrong_fusions()
print(wrong_programs("float32"), wrong_programs("bfloat16"), os.environ["XLA_FLAGS"], sep="|")
"""


def test_all_programs_pass_as_users_compile_them(python):
    out = python(PROGRAMS, "without")
    assert out.returncode == 0, out.stderr
    full, half, flags = out.stdout.strip().split("|")
    assert (full, half) == ("[]", "[]")
    assert "--xla_force_host_platform_device_count=1" in flags  # a user's own flags are kept


def test_the_fusions_of_jaxlib_0_12_are_found_wrong_in_bfloat16_and_right_in_float32(python):
    out = python(PROGRAMS, "with")
    assert out.returncode == 0, out.stderr
    full, half, _ = out.stdout.strip().split("|")
    wrong = "['residual block and mean']" if jax.__version__ == "0.12.0.1" else "[]"
    assert (full, half) == ("[]", wrong)


@pytest.mark.parametrize("value", [np.nan, 1e-3])
def test_a_wrong_program_ends_the_run_in_one_line_each_time(monkeypatch, tmp_path, value):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    _, reference, arrays = canary.PROGRAMS["weight gradient"]
    wrong = lambda x, kernel, cotangent: (
        canary._weight_gradient(x, kernel, cotangent)
        .at[0, 0]
        .add(value * jnp.abs(kernel).max() * 1e4)
    )
    monkeypatch.setitem(canary.PROGRAMS, "weight gradient", (wrong, reference, arrays))
    for _ in range(2):  # what failed is not remembered
        with pytest.raises(UserError, match=r"float32 .*\(weight gradient\): jaxlib .*FLAGS"):
            canary.check_compiler("float32")


def test_what_passed_is_not_run_again_until_flags_change(monkeypatch, tmp_path):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    runs = []
    monkeypatch.setattr(canary, "wrong_programs", lambda dtype: runs.append(dtype) or [])
    for _ in range(2):
        canary.check_compiler("float32")
        canary.check_compiler("bfloat16")
    assert runs == ["float32", "bfloat16"]
    monkeypatch.setenv("XLA_FLAGS", f"{FUSION_FLAG}=individual_dot")
    canary.check_compiler("bfloat16")
    assert runs == ["float32", "bfloat16"] * 2


def test_a_users_own_fusion_flag_wins(monkeypatch):
    own = f"{FUSION_FLAG}=individual_dot"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {own}")
    assert leave_out_wrong_fusions() == own
    assert os.environ["XLA_FLAGS"] == f"--xla_a=1 {own}"


def test_a_guide_in_half_precision_counts(tmp_path):
    guide = tmp_path / "guide"
    guide.mkdir()
    write_json(guide / "config.json", {"config": {"compute_dtype": "bfloat16"}})
    config = {"compute_dtype": "float32", "sample": {"weaker": ""}, "name": "bfloat16"}
    assert not _computes_in_half(ConfigDict(config))
    assert _computes_in_half(ConfigDict({**config, "sample": {"weaker": str(guide)}}))
    assert _computes_in_half(ConfigDict({**config, "compute_dtype": "bfloat16"}))
    (guide / "config.json").write_text("{")
    assert not _computes_in_half(ConfigDict({**config, "sample": {"weaker": str(guide)}}))
