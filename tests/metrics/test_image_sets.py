"""Metrics of two sets of images: their values, their names, and sets that cannot be compared."""

import dataclasses
import functools

import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import frechet, kernel, manifold
from genjax.metrics.arrays import sample_order
from genjax.metrics.image_sets import METRICS, Protocol, compare, count_name, names_of, summarize

PROTOCOL = Protocol("net_12345678", "12345678" * 8, "none", (4, 4, 3))


def features_and_logits(rng, count):
    return {"features": rng.normal(size=(count, 5)), "logits": rng.normal(size=(count, 10))}


def the_set(values, cuts=(), **options):
    edges = [0, *cuts, len(values["features"])]
    batches = [{k: v[a:b] for k, v in values.items()} for a, b in zip(edges, edges[1:])]
    options = {"keep": 30, "num_classes": 10, "num_modes": 10, **options}
    return summarize(batches, PROTOCOL, edges[-1], **options)


def test_all_numbers_are_those_of_their_functions_in_any_batches(rng, monkeypatch):
    small = functools.partial(kernel.kid, subsets=3, subset_size=12)
    monkeypatch.setattr(kernel, "kid", small)
    real, made = features_and_logits(rng, 40), features_and_logits(rng, 30)
    numbers = compare(the_set(real), the_set(made), METRICS)
    x, y = real["features"], made["features"]
    x32 = x[sample_order(40)[:30]].astype("float32")
    y32 = y[sample_order(30)].astype("float32")
    expected = {
        "fd": frechet.frechet_distance(frechet.Moments.of(x), frechet.Moments.of(y)),
        "kd": kernel.kernel_distance(x32, y32)[0],
        "kd_standard_error": kernel.kernel_distance(x32, y32)[1],
        "kd_subsets": small(x32, y32, rng=np.random.default_rng(0))[0],
        "recall": manifold.precision_recall(x32, y32)[1],
        "density": manifold.density_coverage(x32, y32)[0],
        "modes": len(set(np.argmax(made["logits"], axis=1))),
    }
    for name, value in expected.items():
        assert numbers[f"{name}_net_12345678_30"] == pytest.approx(value, rel=1e-12)
    cut = compare(the_set(real, (7, 9, 33)), the_set(made, (1, 2, 3, 20, 21, 22)), METRICS)
    assert cut == pytest.approx(numbers, rel=1e-9, abs=1e-12)
    names = [n for m in METRICS for n in names_of(m, PROTOCOL.net, False, 30, 40)]
    assert names == list(numbers)


def sorted_by_class(rng, counts):
    """Features around the mean of each class, and logits that are certain of it."""
    labels = np.repeat(np.arange(10), counts)
    means = 8 * np.eye(10, 12)
    features = means[labels] + rng.normal(size=(len(labels), 12))
    return {"features": features, "logits": 8 * np.eye(10)[labels]}


@pytest.mark.parametrize("sorted_generated", [True, False])
def test_one_class_is_worse_than_held_out_images_of_all_under_every_metric(
    rng, sorted_generated, monkeypatch
):
    """The reference is sorted by class, and has ten times the images that are kept."""
    monkeypatch.setattr(kernel, "kid", functools.partial(kernel.kid, subsets=9, subset_size=60))
    real = the_set(sorted_by_class(rng, [300] * 10), keep=300)
    held_out = sorted_by_class(rng, [30] * 10)
    if not sorted_generated:
        order = rng.permutation(300)
        held_out = {name: value[order] for name, value in held_out.items()}
    first_class = sorted_by_class(rng, [300] + [0] * 9)
    good, bad = (
        compare(real, the_set(values, keep=300), METRICS) for values in (held_out, first_class)
    )
    value = lambda numbers, name: numbers[f"{name}_net_12345678_300"]
    for name in ("fd", "kd", "kd_subsets", "modes_kl"):  # less is better
        assert value(bad, name) > value(good, name) + 1, name
    for name in ("recall", "coverage", "modes", "is"):  # more is better
        assert value(bad, name) < 0.5 * value(good, name), name
    assert abs(value(good, "kd")) < 3 * value(good, "kd_standard_error")
    # These two are of single images: a sample of one class is as good as one of all.
    for name in ("precision", "density"):
        assert value(bad, name) < 1.4 * value(good, name), name


def test_fewer_images_are_compared_with_a_sample_of_all_classes(rng):
    real = the_set(sorted_by_class(rng, [300] * 10), keep=1000)
    first = real.features[:100, :10].argmax(axis=1)
    assert set(first) == set(range(10)) and np.bincount(first).max() < 25


def test_three_digits_spell_a_mode(rng):
    logits = np.zeros((2, 3, 10))
    logits[0, [0, 1, 2], [9, 0, 4]] = logits[1, [0, 1, 2], [0, 0, 1]] = 1
    values = {"features": rng.normal(size=(2, 5)), "logits": logits}
    counts = the_set(values, num_classes=0, num_modes=1000).mode_counts
    assert np.flatnonzero(counts).tolist() == [1, 904]


def test_a_name_says_how_many_and_only_the_one_net_has_fid():
    assert [count_name(n) for n in (50_000, 2_500, 999)] == ["50k", "2500", "999"]
    assert names_of("fd", "inception", True, 50_000, 50_000) == ["fid_inception_50k"]
    assert names_of("fd", "inception_00000000", False, 50_000, 50_000) == [
        "fd_inception_00000000_50k"
    ]
    # Metrics over pairs see as many images as the smaller set has, and no more than are kept.
    assert names_of("kid", "inception", True, 50_000, 50_000)[0] == "kid_inception_10k"
    assert names_of("kid", "net", False, 5_000, 50_000)[0] == "kd_subsets_net_5k"
    # KID is the number of the published protocol, not this one.
    assert names_of("kd", "inception", True, 50_000, 50_000)[0] == "kd_inception_10k"
    assert names_of("pr", "net", False, 5_000, 1_415)[0] == "precision_net_1415"


@pytest.mark.parametrize(
    "change", [{"net_sha256": "0" * 64}, {"resize": "torch"}, {"image_shape": (8, 8, 3)}]
)
def test_unlike_sets_are_refused(rng, change):
    one = the_set(features_and_logits(rng, 20))
    other = dataclasses.replace(one, protocol=dataclasses.replace(PROTOCOL, **change))
    with pytest.raises(UserError, match=f"different protocols .*{next(iter(change))}: "):
        compare(one, other, ("fd",))


def test_images_that_did_not_come_are_missed(rng):
    batches = [features_and_logits(rng, 20)]
    with pytest.raises(UserError, match="expected 30 images, got 20"):
        summarize(batches, PROTOCOL, 30)
    with pytest.raises(UserError, match="expected 15 images, got 20"):
        summarize(batches, PROTOCOL, 15)
