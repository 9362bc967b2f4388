"""Generated images against real ones: the same numbers wherever and however they are computed."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.metrics import image_sets
from genjax.metrics.arrays import sample_order
from genjax.metrics.nets import load_net
from genjax.runner import judge as judging
from genjax.runner.config import check_config
from genjax.runner.datasets import find_sources
from genjax.runner.family import find_family
from genjax.runner.judge import Judge
from genjax.runner.run import Run
from genjax.train.parallel import Parallel

JUDGED = """
import json, sys
import jax
from configs import vae_digits
from genjax.data.dataset import load_dataset
from genjax.runner.datasets import find_sources
from genjax.runner.judge import Judge
from genjax.runner.run import set_up_process
from genjax.train.parallel import Parallel

set_up_process()
config = vae_digits.get_config()
config.eval.metrics = ("fd", "kd", "pr", "dc", "is", "modes", "copies")
data = [load_dataset(source, (28, 28, 1)) for source in find_sources(config)]
out = []
for kind, batch_size in (("jit", 500), ("jit", 72), ("pmap", 500)):
    config.eval.batch_size = batch_size
    judge = Judge.create(config, Parallel.create(kind), *data)
    images = data[1].images
    whole = judge([images], len(images))[0]
    parts = judge([images[:5], images[5:300], images[300:]], len(images))[0]
    out += [whole, parts]
print(json.dumps([jax.device_count(), out]))
"""


@pytest.fixture
def judge(smoke_config):
    """A judge by a config of its own, of the embedded data."""

    def make(**overrides):
        config = smoke_config(**{"eval.num_samples": 32, **overrides})
        check_config(config, find_family(config.experiment).FIELDS, 1)
        shape = tuple(config.data.image_shape)
        data = [load_dataset(source, shape) for source in find_sources(config)]
        return Judge.create(config, Parallel.create("jit", 1), *data)

    return make


def test_numbers_are_the_same_on_any_devices_and_in_any_batches(python, tmp_path):
    found = []
    for devices in (1, 8):
        cache = {"GENJAX_CACHE": str(tmp_path / str(devices))}  # each makes its own statistics
        done = python(f"import os; os.environ.update({cache})\n{JUDGED}", devices=devices)
        assert done.returncode == 0, done.stderr
        count, numbers = json.loads(done.stdout)
        assert count == devices
        found += numbers
    assert len(found[0]) == 13
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_training_images_are_no_better_than_themselves(judge):
    one = judge(**{"eval.metrics": ("fd", "pr", "copies")})
    images = one.train_data.images
    numbers, pictures = one([images], len(images))
    assert numbers.pop(f"eval/fd_{one.net.name}_1415") == pytest.approx(0, abs=1e-6)
    rates = {n: v for n, v in numbers.items() if "copying" in n}
    assert rates["eval/copying_rate_pixels_1k"] == 1
    assert rates["eval/copying_rate_pixels_held_out_382"] < 0.05
    assert all(v == 1 for n, v in numbers.items() if n not in rates)
    rows = pictures["nearest_training_images"]
    # Ten images, each beside its four nearest, of which it is the first.
    shown = images[sample_order(len(images))[0]]
    np.testing.assert_array_equal(rows[2:30, 2:30], shown)
    np.testing.assert_array_equal(rows[2:30, 32:60], shown)


@pytest.fixture
def sorted_folder(tmp_path):
    """A folder of classes, and more images of its first class: (its name, those images)."""
    for split, each in (("train", 60), ("test", 30)):
        images, labels = find_source("digits", split).read(
            np.arange(find_source("digits", split).size), (28, 28, 1)
        )
        for label in range(10):
            folder = tmp_path / "data" / split / f"digit_{label}"
            folder.mkdir(parents=True)
            for i, image in enumerate(images[labels == label][:each]):
                Image.fromarray(image[..., 0]).save(folder / f"{i:03d}.png")
        if split == "train":
            of_first = images[labels == 0][each:]
    return f"folder:{tmp_path}/data", of_first


def test_in_a_folder_sorted_by_class_one_class_is_worse_than_held_out_images(
    judge, sorted_folder, monkeypatch
):
    name, of_first = sorted_folder
    for module in (judging, image_sets):
        monkeypatch.setattr(module, "MAX_KEPT", 200)
    metrics = ("fd", "kd", "pr", "dc", "is", "modes")
    one = judge(**{"data.name": name, "eval.net": "cnn_digits", "eval.metrics": metrics})
    held_out = one.eval_data.images
    good, _ = one([held_out], 300)
    bad, _ = one([np.resize(of_first, held_out.shape)], 300)
    value = lambda numbers, name: next(
        v for k, v in numbers.items() if k.startswith(f"eval/{name}_")
    )
    for name in ("fd", "kd_cnn", "modes_kl"):
        assert value(bad, name) > 5 * max(value(good, name), 0.01), name
    for name in ("recall", "coverage", "modes_cnn", "is_cnn"):
        assert value(bad, name) < 0.5 * value(good, name), name
    assert value(bad, "precision") < 1.2 * value(good, "precision")
    assert value(bad, "density") < 1.4 * value(good, "density")
    assert value(good, "kd_cnn") < 4 * value(good, "kd_standard_error")


def test_copies_are_looked_for_among_all_classes(judge, monkeypatch):
    monkeypatch.setattr(judging, "NUM_COPIES", 60)
    one = judge(**{"eval.metrics": ("copies",)})
    order = np.argsort(one.eval_data.labels, kind="stable")
    held_out = one.eval_data.images[order]
    last = one.eval_data.labels[order] == 9  # images of the last class are in the training set
    training = np.concatenate([one.train_data.images[:500], held_out[last]])
    data = {"train_data": training, "eval_data": held_out}
    for key, images in data.items():
        labels = np.zeros(len(images), np.int32)
        data[key] = dataclasses.replace(getattr(one, key), images=images, labels=labels)
    rates, _ = dataclasses.replace(one, **data)([held_out], len(held_out))
    expected = np.mean(last[sample_order(len(held_out))[:60]])
    assert expected > 0.05
    for name in ("copying_rate_pixels_60", "copying_rate_pixels_held_out_60"):
        assert rates[f"eval/{name}"] == pytest.approx(expected, abs=0.03)


def test_a_reference_of_the_first_images_is_not_used_again(judge, monkeypatch):
    monkeypatch.setattr(judging, "MAX_KEPT", 50)
    monkeypatch.setattr(judging, "_CACHE_FORMAT", 1)
    with monkeypatch.context() as patch:
        patch.setattr(image_sets, "sample_order", np.arange)
        first = judge().real.features
    monkeypatch.setattr(judging, "_CACHE_FORMAT", 2)
    one = judge()
    sample = one.real.features
    assert sample.shape == first.shape == (50, 128) and np.abs(sample - first).max() > 0.1
    chosen = one.train_data.images[sample_order(len(one.train_data))[:50]]
    (out,) = one._features([chosen])
    np.testing.assert_allclose(sample, out["features"], atol=1e-4)
    np.testing.assert_array_equal(judge().real.features, sample)  # from the cache


def test_too_few_images_for_a_metric_are_told_before_they_are_made(judge):
    with pytest.raises(UserError, match="num_samples: 500 images are too few for 'kid'.* 1000"):
        judge(**{"eval.metrics": ("fd", "kid"), "eval.num_samples": 500})
    with pytest.raises(UserError, match="the reference digits: 382 images are too few for 'kid'"):
        judge(**{"eval.metrics": ("kid",), "eval.num_samples": 1000, "eval.reference": "eval"})
    one = judge(**{"eval.num_samples": 0})
    with pytest.raises(UserError, match="images to be judged: 5 images are too few for 'dc'"):
        one(iter(()), 5)


def test_a_run_its_evaluation_and_its_files_give_one_number(launch, tmp_path):
    config = "--config=configs/vae_digits.py:smoke"
    args = [config, f"--workdir={tmp_path}/run", "--config.model.name=mlp"]  # compiles sooner
    args += ["--config.model.encoder_features=(8,)", "--config.model.decoder_features=(8,)"]
    best = "--config.checkpoint.best_metric=eval/fd_NET_16"
    loop = "--config.eval.num_samples_in_loop=16"
    assert launch(*args, loop, best).returncode == 2
    name = load_net("cnn_digits").name
    args += [loop, best.replace("NET", name)]
    for mode in ("train", "eval", "sample"):
        done = launch(*args, f"--mode={mode}", "--config.sample.num=32")
        assert done.returncode == 0, done.stderr
    read = lambda path: json.loads((tmp_path / path).read_text())
    report, again = read("run/report.json"), read("run/eval_00000008.json")
    numbers = {k: v for k, v in report.items() if k.startswith("eval/")}
    assert numbers == {k: v for k, v in again.items() if k.startswith("eval/")}
    assert {f"eval/fd_{name}_32", f"eval/precision_{name}_32", f"eval/fd_{name}_16"} <= set(numbers)
    protocol = report["protocol"]["samples"]
    assert (
        protocol["net"] == name
        and protocol["num_generated"] == 32
        and protocol["reference"] == "digits:train"
    )

    judged = []
    for images in ("step_00000008_seed_0.npz", "step_00000008_seed_0"):
        path = f"{tmp_path}/run/samples/{images}"
        path = path if path.endswith(".npz") else f"folder:{path}"
        workdir = f"--workdir={tmp_path}/{len(judged)}"
        done = launch(config, workdir, "--mode=eval", f"--images={path}")
        assert done.returncode == 0, done.stderr
        (file,) = (tmp_path / str(len(judged))).glob("eval_images_*.json")
        judged.append(json.loads(file.read_text()))
    for found in judged:
        same = {k: v for k, v in found.items() if k.startswith("eval/")}
        assert same == {k: v for k, v in numbers.items() if k in same} and len(same) == 9


def test_a_classifier_learns_from_samples_and_is_tested_on_real_images(launch, tmp_path):
    """The classification accuracy score, here of the training images themselves."""
    images, labels = find_source("digits", "train").read(np.arange(200), (28, 28, 1))
    names = [str(i) for i in range(10)]
    np.savez(tmp_path / "a.npz", images=images, labels=labels, class_names=names)
    args = [
        "--config=configs/cnn_digits.py:smoke",
        f"--workdir={tmp_path}/run",
        f"--config.data.name=npz:{tmp_path}/a.npz",
        "--config.num_train_steps=100",
        "--config.eval_every_steps=0",
        "--config.checkpoint_every_steps=0",
        "--config.optim.lr=0.01",
    ]
    wrong = launch(*args, "--config.data.eval_name=stacked_mnist")
    assert wrong.returncode == 2
    done = launch(*args, "--config.data.eval_name=digits")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["protocol"]["data"] == "digits:test" and report["eval/accuracy"] > 0.5
    assert (tmp_path / "run" / "feature_net.npz").exists()

    np.savez(tmp_path / "b.npz", images=images[:20], labels=np.arange(20))
    args[1:3] = f"--workdir={tmp_path}/other", f"--config.data.name=npz:{tmp_path}/b.npz"
    wrong = launch(*args, "--config.data.eval_name=digits")
    assert wrong.returncode == 2
    assert "must be a dataset of 20 classes" in wrong.stderr


@pytest.mark.parametrize(
    "overrides, says",
    [
        ({"eval.metrics": ("fid",)}, "config.eval.metrics='fid' is not known; did you mean 'fd'"),
        ({"eval.net": "cnn_cifar10"}, r"takes images \(32, 32, 3\), not \(28, 28, 1\)"),
        ({"eval.net": "cnn_mnst"}, "there is no feature net 'cnn_mnst'"),
        ({"eval.reference": "tset"}, "config.eval.reference='tset' is not known"),
        ({"eval.num_samples": 5}, "config.eval.num_samples=5 must be 0, or at least 10"),
        ({"eval.num_samples": -1}, "must be at least 0"),
        ({"eval.resize": "bilinear"}, "config.eval.resize='bilinear' is not known"),
        ({"sample.label": 3}, "config.sample.label=3 must be -1 without classes"),
        ({"data.loader": "grain", "eval.metrics": ("copies",)}, "without copies"),
    ],
)
def test_mistakes_are_told_before_anything_runs(smoke_config, overrides, says):
    with pytest.raises(UserError, match=says):
        Run.build(smoke_config(**{"eval.num_samples": 32, **overrides}))


def test_a_classifier_has_nothing_to_judge():
    from configs import cnn_digits

    config = cnn_digits.get_config("smoke")
    config.eval.num_samples = 10
    with pytest.raises(UserError, match="num_samples=10 must be 0: .*has nothing to sample"):
        Run.build(config)


def test_a_dataset_without_a_net_needs_one(smoke_config, tmp_path):
    images = np.zeros((20, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    data = {"data.name": f"npz:{tmp_path}/a.npz", "eval.num_samples": 10}
    with pytest.raises(UserError, match="no feature net is known .*set config.eval.net"):
        Run.build(smoke_config(**data))
    run = Run.build(smoke_config(**data, **{"eval.net": "cnn_mnist"}))
    assert run.judge.net.name.startswith("cnn_mnist_")
