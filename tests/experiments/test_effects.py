"""Every field of every family changes what is built, or is held by a test of its own; one that
cannot have an effect is refused."""

import pytest

from genjax.errors import UserError
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import check_config
from genjax.runner.family import completed, find_family
from genjax.runner.fields import Choice, check_idle, merged
from tests.effects import Case, Held, another, described, held, label, leaves

CLASSES = tuple("0123456789")

# ---- The cases of each family ----

UNET = {"model.conditional": True}
CONSISTENCY = {"objective.name": "consistency", "process.name": "edm"}
GUIDED = {**UNET, "objective.label_dropout": 0.1, "sample.guidance": 2.0}
ADA = {"augment.name": "ada", "augment.p": 0.2}
DIFFUSION = "tests/experiments/diffusion/test_diffusion.py::"
DIFFUSION_TASKS = "tests/experiments/diffusion/test_diffusion_tasks.py::"
STYLE_TRANSFER = "tests/experiments/style/test_style_transfer.py::"
INSTANT_STYLE = "tests/experiments/style/test_instant_style.py::"

# What the ways of style transfer share.
PAIR = {
    "content": Case("flower"),
    "style": Case("china"),
    "more_styles": Case(("china",)),
    "style_shares": Case((1.0, 3.0), on={"more_styles": ("china",)}),
    "weights": Held(f"{STYLE_TRANSFER}test_weights_that_would_run_something"),
    "model.variant": Case(off={"weights": "/a/file.npz"}),
    "model.depth": Case(16),
    "model.padding": Case("replicate"),
}
TRAINED = f"{INSTANT_STYLE}test_adain_is_trained_used_and_used_again"

BASE = {
    "classifier": {"data.image_shape": (32, 32, 3)},
    "vqvae": {"data.image_shape": (32, 32, 3)},
    "vdvae": {"data.image_shape": (32, 32, 3)},
    "gan": {},
    "vae": {},
    "diffusion": {"data.image_shape": (32, 32, 3)},
    "one_step": {"data.image_shape": (32, 32, 3)},
    "autoregressive": {},
    "adain": {"weights": "random", "data.image_shape": (32, 32, 3)},
    "feedforward_style": {
        "weights": "random",
        "data.image_shape": (32, 32, 3),
        "style_size": 64,
    },
    "style_transfer": {"weights": "random", "sizes": (64,)},
    "wct": {"weights": "random", "levels": (1,)},
}

R3GAN = {"model.name": "r3gan", "model.generator_features": (16, 16, 16)}
R3GAN["model.discriminator_features"] = (16, 16, 16)

CASES = {
    "classifier": {
        "model[cnn].num_pools": Case(3),
        "model[cnn].features": Case((32, 64, 32)),
        "model[airbench].features": Case((64, 64, 256)),
        "model[resnet].blocks": Case((2, 2, 2)),
    },
    "vae": {
        "model.name": Case("mlp"),
        "model.encoder_hidden": Case(off={"model.name": "mlp"}),
        "model.blocks": Case(on={"model.name": "resnet"}),
        "model.activation": Case("tanh", on={"model.name": "mlp"}),
        "prior.components": Case(on={"prior.name": "mixture"}),
        "objective.name": Case("iwae"),
        "objective.likelihood": Case("gaussian"),
        "objective.kl_schedule": Case(
            "linear", also={"objective.kl_steps": 5}, off={"objective.beta": 0.0}
        ),
        "objective.kl_steps": Case(
            5, on={"objective.kl_schedule": "cyclic", "objective.kl_steps": 4}
        ),
        "objective.free_bits": Case(off={"objective.beta": 0.0}),
        "eval.importance_chunk": Case(on={"eval.importance_samples": 70}),
    },
    "vdvae": {
        "model.factors": Case((2, 2, 4, 2)),
        "model.encoder_blocks": Case((1, 2, 2, 1, 1)),
        "model.decoder_blocks": Case((1, 4, 3, 2, 1)),
        "objective.likelihood": Case("gaussian"),
        "objective.kl_schedule": Case(
            "linear", also={"objective.kl_steps": 5}, off={"objective.beta": 0.0}
        ),
        "objective.kl_steps": Case(
            5, on={"objective.kl_schedule": "cyclic", "objective.kl_steps": 4}
        ),
    },
    "vqvae": {},
    "gan": {
        "optim.lr": Case(off={"optim.name": "lbfgs"}),
        "optim.b1": Case(off={"optim.name": "sgd"}),
        "data.pixels": Held("tests/experiments/gan/test_gan.py::test_a_mistake_is_one_line"),
        "model.name": Case("dcgan"),
        "model.norm_momentum": Case(off={"model.name": "r3gan"}),
        "model.blocks": Case(on=R3GAN),
        "model.expansion": Case(on=R3GAN),
        "model.group": Case(8, on=R3GAN),
        "model.float32_stages": Case(on=R3GAN),
        "model.remat": Case(on=R3GAN),
        "objective.loss": Case("hinge"),
        "objective.penalty_interval": Case(on={"objective.r2": 1.0}),
        "objective.d_steps": Case(2),
        "augment.name": Case("diffaugment"),
        "augment.policy": Case(("color",), on={"augment.name": "diffaugment"}),
        "augment.p": Case(0.5, on=ADA),
        "augment.target": Case(on=ADA),
        "augment.interval": Case(on=ADA, off={**ADA, "augment.target": 0.0}),
        "augment.speed_images": Case(on=ADA, off={**ADA, "augment.target": 0.0}),
        "eval.standing_samples": Case(100, off={"model.name": "r3gan"}),
    },
    "autoregressive": {
        "model[gated_pixelcnn].dilations": Case((1, 2)),
        "model[pixelcnn].first_kernel": Case(5),
        "model[pixelcnn].kernel": Case(5),
        "model[gated_pixelcnn].first_kernel": Case(5),
        "model[gated_pixelcnn].kernel": Case(5),
        "model[pixelsnail].heads": Case(2),
        "objective.head": Case("logistic_mixture"),
        "objective.components": Case(on={"objective.head": "logistic_mixture"}),
    },
    "diffusion": {
        "data.pixels": Held(
            "tests/experiments/diffusion/test_diffusion.py::test_a_mistake_is_one_line"
        ),
        "model[unet].attention": Case((16,)),
        "model[unet].classes_first": Case(on=UNET),
        "model[dit].num_heads": Case(2),
        "objective.target": Case("v"),
        "objective.sigma_data": Case(off={"objective.target": "v", "objective.scale_input": False}),
        "objective.time_mean": Case(-1.0, off={"objective.time_sampling": "uniform"}),
        "objective.time_std": Case(off={"objective.time_sampling": "uniform"}),
        "objective.label_dropout": Case(on=UNET),
        "init_from": Held(f"{DIFFUSION_TASKS}test_a_run_begins_with_another_runs_parameters"),
        "sample.task": Held(f"{DIFFUSION_TASKS}test_progress_ends_at_the_seeds_images"),
        "sample.input": Held(f"{DIFFUSION_TASKS}test_inpainting_leaves_what_the_mask_leaves"),
        "sample.strength": Held(f"{DIFFUSION_TASKS}test_edits_of_no_strength_are_the_pictures"),
        "sample.mask": Held(f"{DIFFUSION_TASKS}test_inpainting_leaves_what_the_mask_leaves"),
        "sample.walk": Held(
            f"{DIFFUSION_TASKS}test_interpolation_goes_from_one_image_of_the_seed_to_another"
        ),
        "sample.weaker": Held(f"{DIFFUSION_TASKS}test_guidance_by_a_run_of_another_network"),
        "sample.weaker_step": Held(f"{DIFFUSION_TASKS}test_a_mistake_is_one_line"),
        "sample.sampler": Case("unipc"),
        "sample.eta": Case(on={"sample.sampler": "ddim"}),
        "sample.variance": Case(on={"sample.sampler": "ancestral"}),
        "sample.churn": Case(off={"sample.sampler": "unipc"}),
        "sample.churn_min": Case(on={"sample.churn": 5.0}),
        "sample.churn_max": Case(10.0, on={"sample.churn": 5.0}),
        "sample.churn_noise": Case(on={"sample.churn": 5.0}),
        "sample.guidance": Case(on={**UNET, "objective.label_dropout": 0.1}),
        "sample.guidance_interval": Case((0.1, 5.0), on=GUIDED),
    },
    "one_step": {
        "data.pixels": Held(
            "tests/experiments/diffusion/test_diffusion.py::test_a_mistake_is_one_line"
        ),
        "model[unet].attention": Case((16,)),
        "model[unet].classes_first": Case(on=UNET),
        "model[dit].num_heads": Case(2),
        "objective.name": Case("consistency", also={"process.name": "edm"}),
        "objective.label_dropout": Case(on=UNET),
        "objective.sigma_data": Case(on=CONSISTENCY),
        "objective.stages": Case(on=CONSISTENCY),
        "objective.huber": Case(on=CONSISTENCY),
        "objective.flow_ratio": Case(off=CONSISTENCY),
        "objective.power": Case(off=CONSISTENCY),
        "sample.schedule": Case(
            "karras",
            on={**CONSISTENCY, "sample.num_steps": 2},
            off={**CONSISTENCY, "sample.num_steps": 1},
        ),
        "process[edm].sigma_min": Case(on=CONSISTENCY),
        "process[edm].sigma_max": Case(on=CONSISTENCY),
        "sample.churn_max": Case(1.0),
        "sample.guidance_interval": Case((0.1, 5.0)),
        "init_from": Held(f"{DIFFUSION_TASKS}test_a_run_begins_with_another_runs_parameters"),
    },
    "style_transfer": {
        **PAIR,
        "num_train_steps": Held(f"{STYLE_TRANSFER}test_from_coarse_to_fine"),
        "sizes": Case((48,)),
        "size_steps": Held(f"{STYLE_TRANSFER}test_from_coarse_to_fine"),
        "size_index": Held(f"{STYLE_TRANSFER}test_from_coarse_to_fine"),
        "init_from": Held(f"{STYLE_TRANSFER}test_from_coarse_to_fine"),
        "start.from": Case("noise"),
        "start.noise": Case(on={"start.from": "blend"}),
        "guides.content": Held(f"{STYLE_TRANSFER}test_masks_keep_regions_apart"),
        "guides.style": Held(f"{STYLE_TRANSFER}test_masks_keep_regions_apart"),
        "style_scale": Case(1.5),
        "tile": Case(32, on={"model.style_layers": ("relu1_1",)}),
        "model.content_layers": Case(("block4_conv2",)),
        "model.style_layers": Case(("block4_conv2",)),
        "model.style_layer_weights": Case((1.0, 2.0, 3.0, 4.0, 5.0)),
        "objective.style": Case("wasserstein"),
        "objective.content": Case(off={"model.content_layers": ()}),
        "objective.content_weight": Case(off={"model.content_layers": ()}),
    },
    "adain": {
        **PAIR,
        "decoder": Held(TRAINED),
        "style_data": Held(TRAINED),
        "num_styles": Held(TRAINED),
        "model.padding": Case("zero"),
        "model.layer": Case("relu3_1"),
    },
    "feedforward_style": {
        **PAIR,
        "model.depth": Case(19),
        "more_styles": Held(f"{INSTANT_STYLE}test_mistakes_are_one_line"),
        "style_shares": Held(f"{INSTANT_STYLE}test_mistakes_are_one_line"),
        "strength": Held(f"{INSTANT_STYLE}test_mistakes_are_one_line"),
        "model.content_layers": Case(("relu2_2",)),
        "model.style_layers": Case(("relu2_2",)),
        "objective.style": Case("mean_std"),
        "objective.content_weight": Case(off={"model.content_layers": ()}),
    },
    "wct": {
        **PAIR,
        "seed": Case(off={"weights": "encoder{}.npz"}),
        "weights": Held(f"{INSTANT_STYLE}test_wct_from_files"),
        "decoder": Held(f"{INSTANT_STYLE}test_wct_from_files"),
        "levels": Case((2,)),
    },
}


def config_of(family, overrides=(), groups=()):
    """The config of a family at its defaults, small, with some overrides."""
    module = find_family(family)
    config = module.default_config()
    overrides = {**BASE[family], **dict(overrides)}
    with config.unlocked():
        for choice, name in dict(groups).items():
            config[choice] = module.FIELDS[choice].select(name)
        for choice in (key for key in overrides if key.endswith(".name")):
            group = module.FIELDS.get(choice.split(".")[0])
            if isinstance(group, Choice):
                config[choice.split(".")[0]] = group.select(overrides[choice])
        config.update_from_flattened_dict(overrides)
    return config


def built(family, config):
    module = find_family(family)
    config = completed(config)
    check_config(config, module.FIELDS, 1)
    if family == "wct":
        return module.load_levels(config)
    return module.build(config, tuple(config.data.image_shape), CLASSES)


FIELDS_OF = [
    (family, label(groups, key), groups, key, field)
    for family in CASES
    for groups, key, field in leaves(find_family(family).FIELDS)
]


@pytest.mark.parametrize(
    "family,name,groups,key,field", FIELDS_OF, ids=[f"{x[0]}-{x[1]}" for x in FIELDS_OF]
)
def test_a_field_changes_what_is_built_or_is_refused(family, name, groups, key, field):
    case = CASES[family].get(name, Case())
    if isinstance(case, Held):
        assert held(case.test)
        return
    if not field.only_with or all(when.tests for when in field.only_with):
        value = another(field) if case.value is None else case.value
        before = built(family, config_of(family, case.on, groups))
        after = built(family, config_of(family, {**case.on, **case.also, key: value}, groups))
        assert described(before) != described(after)
    if field.only_with:
        value = case.value
        if value is None:
            free = isinstance(field.default, str) and not field.one_of
            value = "x" if free else ("x",) if field.default == () else another(field)
        config = config_of(family, {**case.off, key: value}, groups)
        fields = merged(SHARED, find_family(family).FIELDS)
        with pytest.raises(UserError, match=rf"config\.{key}=") as info:
            check_idle(config, fields)
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("family", CASES)
def test_half_precision_reaches_networks(family):
    configs = config_of(family), config_of(family, {"compute_dtype": "bfloat16"})
    full, half = (described(built(family, config)) for config in configs)
    assert full != half


# (family, fields, what the one line says): combinations without a rule of one field.
REFUSED = [
    ("classifier", {"data.pixels": "integers"}, "data.pixels='integers' must be"),
    ("classifier", {"model.num_pools": 4}, "num_pools=4 must be at most the 3 convolutions"),
    ("classifier", {"sample_every_steps": 7}, "sample_every_steps=7 must be 0"),
    (
        "classifier",
        {"model.name": "airbench", "data.pixels": "symmetric"},
        "data.pixels='symmetric' must be unit with config.model.name=airbench",
    ),
    (
        "classifier",
        {"model.name": "airbench", "model.features": (16, 64)},
        r"model.features=\(16, 64\) must be widths of at least 24",
    ),
    (
        "classifier",
        {"model.name": "airbench", "model.features": (64, 32)},
        "model.features=.* from narrow to wide",
    ),
    ("classifier", {"optim.name": "airbench"}, "optim.name='airbench' must be another with .*cnn"),
    ("vae", {"optim.name": "airbench"}, "optim.name='airbench' must be another with .*conv"),
    ("vqvae", {"optim.name": "airbench"}, "optim.name='airbench' must be another with .*vqvae"),
    ("gan", {"augment.name": "ada", "augment.target": 0.0}, "augment.p=0.0 must be above 0"),
    ("gan", {**R3GAN, "model.float32_stages": 4}, "float32_stages=4 must be at most 3, the stages"),
    ("vae", {"profile.num_steps": 5, "num_train_steps": 9}, "profile.start_step=10 must be less"),
    ("vae", {"data.eval_name": "npz:/a.npz", "data.eval_split": "x"}, "data.eval_split='x'"),
    (
        "autoregressive",
        {"model.name": "gated_pixelcnn", "model.kernel": 1, "model.dilations": (1, 2)},
        "model.dilations=.* with model.kernel=1",
    ),
    ("vae", {"model.decoder_features": ()}, r"decoder_features=\(\) must be of at least one"),
    ("adain", {"model.layer": "relu1_1", "model.pool": "avg"}, "model.pool='avg' must be 'max'"),
    (
        "style_transfer",
        {
            "model.content_layers": (),
            "model.style_layers": ("relu1_2",),
            "model.pool": "avg",
        },
        "model.pool='avg' must be 'max'",
    ),
    ("adain", {"data.pixels": "symmetric"}, "data.pixels='symmetric' must be unit"),
    ("feedforward_style", {"data.pixels": "dequantized"}, "data.pixels='dequantized' must be unit"),
    ("diffusion", {"model.attention": (15,)}, r"model.attention=\(15,\) must be some .* 32, 16"),
    ("one_step", {"model.attention": (8,)}, r"model.attention=\(8,\) must be some of the sides"),
    ("one_step", {"eval.vlb_draws": 2}, "eval.vlb_draws=2 must be 0 with config.experiment=one"),
    ("diffusion", {"sample.sampler": "dpmpp_2m_sde"}, "sample.eta=0.0 must be above 0"),
    (
        "diffusion",
        {"sample.churn": 1.0, "sample.churn_min": 2.0, "sample.churn_max": 1.0},
        "churn_min=2.0 must be at most sample.churn_max=1.0",
    ),
    (
        "diffusion",
        {"sample.churn": 1.0, "sample.churn_min": 100.0},
        "churn_min=100.0 must be .* 0.002 to 80",
    ),
    (
        "diffusion",
        {"sample.churn": 1.0, "sample.churn_noise": float("nan")},
        "churn_noise=nan must be at least 0",
    ),
    *(
        ("diffusion", {**GUIDED, "sample.guidance_interval": interval}, "guidance_interval=.*must")
        for interval in ((5.0, 1.0), (1.0,), (1.0, 1.0), (100.0, 200.0), (0.0, float("nan")))
    ),
]


@pytest.mark.parametrize("family,overrides,message", REFUSED, ids=lambda x: str(x)[:60])
def test_what_goes_with_nothing_is_one_line(family, overrides, message):
    with pytest.raises(UserError, match=message) as info:
        built(family, config_of(family, overrides))
    assert "\n" not in str(info.value)
