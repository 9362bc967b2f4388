"""The Python in docs/ runs."""

import math
import re

import jax
import pytest

from tests.conftest import ROOT


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def test_the_examples_of_a_family_in_python_run():
    names: dict = {}
    for block in blocks(ROOT / "docs" / "python.md"):
        exec(block, names)
    assert 20 < float(names["loss"]) < 60  # nats; 64 pixels at chance: 44
    assert set(names["grads"]) == {"encoder", "decoder"}
    assert all(jax.tree.leaves(jax.tree.map(lambda x: bool(abs(x).sum() > 0), names["grads"])))
    assert int(names["state"].step) == 1
    losses = [float(names["metrics"][name]) for name in ("loss_generator", "loss_discriminator")]
    assert losses == pytest.approx([math.log(2), 2 * math.log(2)], abs=0.5)
    assert names["images"].shape == (16, 8, 8, 1)
