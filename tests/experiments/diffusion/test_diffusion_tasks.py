"""The tasks of a trained diffusion model, guides, and parameters in files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import consistency_cifar10, diffusion_digits
from experiments.diffusion import denoisers, diffusion, tasks
from genjax.errors import UserError
from genjax.runner import modes
from genjax.runner.run import Run
from genjax.runner.workdir import open_checkpoints, write_config
from genjax.weights.networks import save_network

SOURCE = {"config_file": "a test", "arguments": ""}
# Compiles faster than a U-Net.
MODEL = denoisers.NETWORKS.select("dit", conditional=True, dim=16, depth=1, num_heads=2)
CLASSES = tuple("0123456789")
SMALL = {
    "num_train_steps": 8,
    "eval.num_samples": 0,
    "eval.num_samples_in_loop": 0,
    "sample.num": 6,
    "sample.batch_size": 4,
    "sample.guidance": 1.0,
    "sample.num_steps": 3,
    "sample.sampler": "ddim",
}


def small(module=diffusion_digits, **overrides):
    config = module.get_config("smoke")
    config.model = MODEL
    config.update_from_flattened_dict({**SMALL, **overrides})
    return config


def params_of(config, seed=0):
    """Parameters of which none is zero."""
    rng = np.random.default_rng(seed)
    family = diffusion.build(config, (8, 8, 1), CLASSES)
    shapes = jax.eval_shape(family.init, jax.random.key(0))[0]
    return jax.tree.map(lambda s: 0.2 * rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(workdir of a run with a checkpoint at step 0, the parameters in it), as if trained."""
    folder = tmp_path_factory.mktemp("trained")
    params = params_of(small())
    return saved(small(), params, folder), params


def saved(config, params, folder):
    weights = folder / "weights.safetensors"
    save_network(weights, None, params, {})
    config.init_from = str(weights)
    run = Run.build(config)
    state = run.start()
    workdir = folder / "run"
    workdir.mkdir()
    write_config(workdir, run, SOURCE)
    checkpoints = open_checkpoints(config, workdir)
    checkpoints.save(0, run.parallel.to_global(state), json.loads(config.to_json()))
    checkpoints.close()
    return workdir


def drawn(workdir, **overrides):
    """The arrays of what --mode=sample draws."""
    config = small(**{f"sample.{key}": value for key, value in overrides.items()})
    modes.sample(config, workdir, SOURCE)
    task = f"_{config.sample.task}" if config.sample.task != "draw" else ""
    path = workdir / "samples" / f"step_00000000_seed_0{task}"
    assert path.with_suffix(".png").exists() and (path / "000000.png").exists()
    return dict(np.load(path.with_suffix(".npz")))


def near(a, b):
    """Up to one level: batches may be compiled differently."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def new_images(trained):
    return drawn(trained[0])["images"]


def test_progress_ends_at_the_seeds_images(trained, new_images):
    results = drawn(trained[0], task="progress")
    assert near(results["images"], new_images) and results["strips"].shape == (6, 10, 8, 8, 1)
    np.testing.assert_array_equal(results["strips"][:, -1], results["images"])
    assert not near(results["strips"][:, 0], results["images"])


def test_interpolation_goes_from_one_image_of_the_seed_to_another(trained, new_images):
    results = drawn(trained[0], task="interpolate", walk=(5, 3), label=3)["images"]
    assert near(results[-1], new_images[3])  # which is of class 3
    assert not near(results[0], results[-1])


def test_edits_of_no_strength_are_the_pictures(trained):
    results = drawn(trained[0], task="edit", strength=0.01)
    assert near(results["images"], results["inputs"])
    assert len(np.unique(results["images"])) > 10


def test_inpainting_leaves_what_the_mask_leaves(trained, tmp_path):
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).save(picture)
    Image.fromarray(np.tile(np.uint8([0, 0, 255, 0, 0, 0, 0, 255]), (8, 1))).save(mask)
    options = {"task": "inpaint", "input": str(picture), "mask": str(mask)}
    results = drawn(trained[0], **options)
    generated = np.zeros(8, bool)
    generated[[2, 7]] = True
    changed = results["images"] != results["inputs"]
    assert not changed[:, :, ~generated].any() and changed[:, :, generated].mean() > 0.8
    assert (results["images"][0] != results["images"][1]).any()  # each by its own noise


def test_masks(tmp_path):
    def read(pixels, mode="L", shape=(8, 8, 1)):
        Image.fromarray(np.uint8(pixels), mode).save(tmp_path / "mask.png")
        return tasks._read_mask(str(tmp_path / "mask.png"), shape)

    half = np.tile(np.uint8([0] * 4 + [255] * 4), (8, 1))
    right = half[..., None] > 127
    np.testing.assert_array_equal(read(half), right)
    # What is transparent is not to be generated, whatever colour it has.
    white = np.full((8, 8), 255)
    np.testing.assert_array_equal(read(np.stack([white, half], -1), "LA"), right)
    np.testing.assert_array_equal(read(np.stack([white] * 3 + [half], -1), "RGBA"), right)
    for pixels, mode, said in (
        (0 * half, "L", "it is black"),
        (white, "L", "it is white"),
        (np.stack([white, 0 * half], -1), "LA", "it is black"),
        (
            np.pad(0 * half, ((0, 0), (8, 8)), constant_values=255),
            "L",
            "what is white lies outside",
        ),
        (np.pad(white, ((0, 0), (8, 8))), "L", "what is black lies outside .* cropped to 8x8"),
    ):
        with pytest.raises(UserError, match=f"sample.mask=.*{said}"):
            read(pixels, mode)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match="config.sample.mask: cannot read .*text.png") as info:
        tasks._read_mask(str(tmp_path / "text.png"), (8, 8, 1))
    assert "bad_images" not in str(info.value)
    config = small(**{"sample.task": "inpaint", "sample.mask": str(tmp_path / "mask.png")})
    with pytest.raises(UserError, match="what is black lies outside"):
        diffusion.build(config, (8, 8, 1), CLASSES)  # before anything is restored


def test_inversion_is_undone(trained):
    results = drawn(trained[0], task="invert", sampler="heun", num_steps=40)
    assert results["noise"].shape == (6, 8, 8, 1) and results["noise"].dtype == np.float32
    error = np.abs(results["images"].astype(int) - results["inputs"].astype(int))
    assert error.mean() < 5 < results["inputs"].std()


def test_guidance_by_the_run_itself_is_none(trained, new_images):
    itself = drawn(trained[0], weaker=str(trained[0]), guidance=3.0)["images"]
    assert np.abs(itself.astype(int) - new_images).mean() < 0.1


def test_guidance_by_a_run_of_another_network(trained, tmp_path):
    other = small(**{"model.depth": 2})
    write_config(tmp_path, Run.build(other), SOURCE)
    config = small()
    config.sample.update({"weaker": str(tmp_path), "guidance": 3.0})
    family = diffusion.build(config, (8, 8, 1), CLASSES)
    weaker = diffusion.build(other, (8, 8, 1), CLASSES)
    params, worse_params = trained[1], params_of(other, 1)
    x, t, labels = jnp.ones((2, 8, 8, 1)), jnp.float32(0.7), jnp.int32([3, 4])

    @jax.jit
    def all_three(params, worse_params):
        guided = family.denoiser(params, {"guide": worse_params}, labels)(x, t)
        worse = weaker.denoise(worse_params, x, t, labels)
        return guided, family.denoise(params, x, t, labels), worse

    guided, own, worse = all_three(params, worse_params)
    np.testing.assert_allclose(guided, worse + 3 * (own - worse), rtol=1e-4, atol=1e-4)
    assert np.abs(own - worse).max() > 0.01
    with pytest.raises(UserError, match="sample.weaker=.* a run with config.process.name='flow'"):
        config.process = denoisers.PROCESSES.select("flow")
        diffusion.build(config, (8, 8, 1), CLASSES)


def test_what_is_exported_draws_the_same_bits(trained, new_images, tmp_path):
    folder = modes.export(small(), trained[0], SOURCE)
    config = small(init_from=str(folder / "dit.safetensors"))
    again = modes.sample(config, tmp_path / "new", SOURCE)
    np.testing.assert_array_equal(again, new_images)


def test_a_run_begins_with_another_runs_parameters(trained):
    options = {"init_from": str(trained[0]), "parallel": "pmap"}
    options |= {"data.image_shape": (8, 8, 1), "ema.decay": 0.9, "sample.sampler": "heun"}
    config = small(consistency_cifar10, **options)
    run = Run.build(config)
    state = run.parallel.to_local(run.start())
    for tree in (state.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, tree, trained[1])


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"task": "edti"}, "did you mean 'edit'"),
        ({"task": "edit", "strength": 0.0}, r"in \(0, 1\]"),
        ({"task": "interpolate", "walk": (3,)}, "at least two"),
        ({"task": "invert", "sampler": "dpmpp_2m"}, "one of ddim, euler, heun"),
        ({"task": "invert", "eta": 0.5}, "without eta and churn"),
        ({"task": "edit", "input": "/no/such"}, "sample.input='/no/such' must be a picture"),
        ({"task": "inpaint", "mask": "lowr"}, "did you mean 'lower'"),
        ({"weaker": "/no/such"}, "another with sample.weaker"),
        ({"weaker": "/no/such", "guidance": 2.0}, "holds no run"),
        ({"weaker": ".", "weaker_step": "last", "guidance": 2.0}, "a number, latest or best"),
    ],
)
def test_a_mistake_is_one_line(trained, overrides, message):
    with pytest.raises(UserError, match=message) as info:
        drawn(trained[0], **overrides)
    assert "\n" not in str(info.value)


def test_a_network_that_knows_no_image_without_class_asks_for_one(trained):
    config = small(**{"sample.task": "edit", "sample.input": "flower"})
    config.objective.label_dropout = 0.0
    run = Run.build(config)
    with pytest.raises(UserError, match="sample.label=-1 must be a class"):
        tasks.perform(run, None, 0, trained[0], SOURCE)


def test_begin_with_what_is_not_there():
    with pytest.raises(UserError, match="init_from='/no/such' must be a run's workdir or a file"):
        Run.build(small(init_from="/no/such")).start()
