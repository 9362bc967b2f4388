"""Generative adversarial networks (Goodfellow et al. 2014).

A step is d_steps updates of the discriminator, each on its own share of the batch, and one of the
generator, on the images that the last share was compared with: `config.batch_size` counts the real
images of all of them. Networks, loss, penalties and augmentation are independent choices; what they
come to for each player is in `experiments.players`. Beside the parameters of both, the state holds
batch statistics, ADA's probability, LeCam's anchors and the vectors of spectral normalisation, so
that checkpoints, resuming and devices are those of every other family.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import base_config, choose, require
from experiments.players import AUGMENTATIONS, OPERATIONS, Game
from experiments.run import Experiment
from genjax import plots, rng
from genjax.diffusion.editing import slerp
from genjax.errors import UserError
from genjax.models.dcgan import DcganDiscriminator, DcganGenerator
from genjax.models.mlp_gan import MlpDiscriminator, MlpGenerator
from genjax.models.r3gan import R3ganDiscriminator, R3ganGenerator
from genjax.models.sngan import SnganDiscriminator, SnganGenerator
from genjax.objectives import ada, penalties
from genjax.objectives.adversarial import LOSSES
from genjax.rng import Rngs
from genjax.train.optimizers import make_optimizer, make_schedule
from genjax.train.parallel import mean_over_devices, scan
from genjax.train.state import split_batch

WALKS, WALK_STEPS = 5, 10  # rows and columns of an interpolation
CLASS_ROWS, MAX_CLASSES = 8, 16  # of a grid of classes


def gan_config():
    """`base_config` and the fields of this family."""
    config = base_config()
    config.experiment = "gan"
    config.data.pixels = "symmetric"
    config.optim.lr, config.optim.b1 = 2e-4, 0.5
    config.model = {
        "name": "mlp_gan",
        "latent_dim": 100,
        "conditional": False,
        "generator_features": (256, 512, 1024),
        "discriminator_features": (512, 256),
        "norm_momentum": 0.8,  # of the generator's batch norm
        "blocks": 2,  # of each stage of "r3gan", likewise below
        "expansion": 2,
        "group": 16,
    }
    config.objective = {
        "loss": "non_saturating",
        "label_smoothing": 0.0,  # of real images only
        "d_steps": 1,  # of the discriminator, for each of the generator
        "d_lr_ratio": 1.0,  # the discriminator's learning rate over optim.lr
        "r1": 0.0,  # gamma of R1, on real images
        "r2": 0.0,  # gamma of R2, on made ones
        "gradient_penalty": 0.0,  # lambda of WGAN-GP
        "penalty_interval": 1,  # these three in every k-th update, k times as large
        "lecam": 0.0,
        "spectral_norm": False,  # of the discriminator
    }
    config.augment = {
        "name": "none",  # or "diffaugment", "ada"
        "policy": (),  # (): all that it has
        "p": 0.0,  # of ada, at first
        "target": 0.6,  # of ada's feedback; 0: p stays as it is
        "interval": 4,  # updates of the discriminator between changes of p
        "speed_images": 500_000,  # real images in which p goes from 0 to 1
    }
    # The generator's batch statistics are those of so many images, drawn with the parameters that
    # are evaluated; 0: the running averages of training.
    config.eval.standing_samples = 0
    return config


def batch_normed(generator, discriminator):
    """The networks of a pair of classes whose generator has batch norm."""

    def networks(config, image_shape, axis_name):
        model, dtype = config.model, config.compute_dtype
        rest = (model.generator_features, model.norm_momentum, axis_name, dtype)
        return generator(image_shape, *rest), discriminator(model.discriminator_features, dtype)

    return networks


def r3gan(config, image_shape, axis_name):
    model = config.model
    rest = (model.blocks, model.expansion, model.group, config.compute_dtype)
    generator = R3ganGenerator(image_shape, model.generator_features, *rest)
    return generator, R3ganDiscriminator(model.discriminator_features, *rest)


# config.model.name -> (config, image shape, axis name) -> (generator, discriminator)
NETWORKS = {
    "mlp_gan": batch_normed(MlpGenerator, MlpDiscriminator),
    "dcgan": batch_normed(DcganGenerator, DcganDiscriminator),
    "sngan": batch_normed(SnganGenerator, SnganDiscriminator),
    "r3gan": r3gan,
}


def build(config, image_shape, class_names, axis_name):
    """The game of a config, as the shared trainer takes it."""
    num_classes = _check(config, class_names)
    model, objective = config.model, config.objective
    networks = choose(NETWORKS, model.name, "model.name")(config, image_shape, axis_name)
    game = Game(*networks, LOSSES[objective.loss], objective, config.augment)
    latent_dim, d_steps = model.latent_dim, objective.d_steps
    # At evaluation: a generator whose statistics are those of one batch.
    standing = getattr(game.generator, "momentum", None) is not None
    one_batch = game.generator.clone(momentum=0.0) if standing else None

    def one_hot(labels):
        return jax.nn.one_hot(labels, num_classes) if num_classes else None

    def init(key):
        keys = jax.random.split(key, 3)
        y = one_hot(jnp.zeros(1, jnp.int32))
        made = game.generator.init(keys[0], jnp.zeros((1, latent_dim)), y)
        params = {
            "generator": made["params"],
            "discriminator": game.discriminator.init(keys[1], jnp.zeros((1, *image_shape)), y)[
                "params"
            ],
        }
        state = {}
        if "batch_stats" in made:
            state["generator"] = {"batch_stats": made["batch_stats"]}
        if objective.spectral_norm:
            state["spectral"] = penalties.spectral_vectors(params["discriminator"], keys[2])
        if objective.lecam:
            state["lecam"] = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        if config.augment.name == "ada":
            state["ada"] = ada.init_feedback(config.augment.p)
        return params, state

    def make_train_step(tx, ema, axis_name):
        tx_d = discriminator_optimizer(config)

        def train_step(state, batch):
            params, opt_state = state.params, state.opt_state
            own = {k: v for k, v in state.model_state.items() if k != "generator"}
            stats = state.model_state.get("generator", {})
            rngs_of = functools.partial(Rngs, state.rng, state.step)
            z = rng.normal(rngs_of(batch["slot"])("latent"), (latent_dim,))
            whole = {"real": batch["image"], "slot": batch["slot"], "z": z}
            if num_classes:
                whole["y"] = one_hot(batch["label"])
            parts = split_batch(whole, d_steps)
            first, last = (jax.tree.map(lambda x, i=i: x[i], parts) for i in (slice(-1), -1))

            def generated(params, part):
                return game.generate(params, stats, part["z"], part.get("y"), train=True)

            # The generator does not move while the discriminator does: its pass over the last share
            # is the one that its own gradient comes back through.
            g = params["generator"]
            fake, pullback, stats = jax.vjp(lambda g: generated(g, last), g, has_aux=True)
            fakes = fake[None]
            if d_steps > 1:
                earlier = jax.vmap(lambda part: generated(g, part)[0])(first)
                fakes = jnp.concatenate([earlier, fakes])

            def update(carry, part):
                d, opt_d, own = carry
                grad_fn = jax.value_and_grad(game.discriminator_loss, has_aux=True)
                share = part["real"], part["fake"], part.get("y"), rngs_of(part["slot"])
                (_, (metrics, vectors)), grads = grad_fn(d, own, *share, part["update"])
                grads, metrics = mean_over_devices((grads, metrics), axis_name)
                updates, opt_d = tx_d.update(grads, opt_d, d)
                size = config.batch_size // d_steps
                own = game.after_update(own, metrics, vectors, size)
                return (optax.apply_updates(d, updates), opt_d, own), (grads, metrics)

            numbers = state.step * d_steps + jnp.arange(d_steps)
            carry = params["discriminator"], opt_state["discriminator"], own
            carry, stacked = scan(update, carry, {**parts, "fake": fakes, "update": numbers})
            d_grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
            d, opt_d, own = carry

            loss_g, upstream = jax.value_and_grad(game.generator_loss)(
                fake, d, own, last["real"], last.get("y"), rngs_of(last["slot"])
            )
            g_grads, loss_g = mean_over_devices((pullback(upstream)[0], loss_g), axis_name)
            updates, opt_g = tx.update(g_grads, opt_state["generator"], g)
            g = optax.apply_updates(g, updates)

            metrics["loss_generator"] = loss_g
            if "ada" in own:
                metrics["augment_p"] = own["ada"]["p"]
            grads = {"generator": g_grads, "discriminator": d_grads}
            metrics |= {f"grad_norm_{name}": optax.tree.norm(x) for name, x in grads.items()}
            average = {}
            if ema.enabled:
                average = ema.update(state.ema_params, {"generator": g}, state.step)
            new_state = state.replace(
                step=state.step + 1,
                params={"generator": g, "discriminator": d},
                model_state={**own, **({"generator": stats} if stats else {})},
                opt_state={"generator": opt_g, "discriminator": opt_d},
                ema_params=average,
            )
            return new_state, {**metrics, "grads": grads}

        return train_step

    def draw(params, model_state, z, y):
        """Images in [-1, 1], or a little outside."""
        return game.generate(params["generator"], model_state.get("generator", {}), z, y)[0]

    def settle(params, model_state):
        count = config.eval.standing_samples
        key = rng.stream(jax.random.key(config.eval.seed), "standing")
        z = rng.normal(rng.per_example(key, jnp.arange(count)), (latent_dim,))
        y = one_hot(jnp.arange(count) % max(num_classes, 1))
        stats = model_state["generator"]
        fresh = dataclasses.replace(game, generator=one_batch)
        _, stats = fresh.generate(params["generator"], stats, z, y, train=True)
        return {**model_state, "generator": stats}

    def eval_fn(params, model_state, batch, rngs):
        y = one_hot(batch["label"])
        z = rng.normal(rngs("latent"), (latent_dim,))
        weights, _ = game.weights(params["discriminator"], model_state)
        scored = lambda x: game.discriminator.apply({"params": weights}, x, y)
        r, f = scored(batch["image"]), scored(draw(params, model_state, z, y))
        ranked = (r > f).astype(jnp.float32)
        return {"real_logits": r, "fake_logits": f, "real_above_fake": ranked}

    def sample(params, model_state, keys, labels=None):
        y = None if labels is None else one_hot(labels)
        return to_unit(draw(params, model_state, rng.normal(keys, (latent_dim,)), y))

    @jax.jit
    def shown(params, model_state, key):
        """{name: images} of walks between latents, straight and on the sphere, and of classes."""
        pairs = jax.random.normal(key, (2, WALKS, latent_dim))
        u = jnp.linspace(0.0, 1.0, WALK_STEPS)
        straight = lambda a, b, u: (1 - u) * a + u * b
        across = lambda way: jax.vmap(jax.vmap(way, (None, None, 0)), (0, 0, None))(*pairs, u)
        latents = {"walk_straight": across(straight), "walk_sphere": across(slerp)}
        rows = np.arange(WALKS) % max(num_classes, 1)
        labels = {name: np.repeat(rows, WALK_STEPS) for name in latents}
        if num_classes:
            columns = min(num_classes, MAX_CLASSES)
            z = jax.random.normal(jax.random.fold_in(key, 1), (CLASS_ROWS, 1, latent_dim))
            latents["classes"] = jnp.broadcast_to(z, (CLASS_ROWS, columns, latent_dim))
            labels["classes"] = np.tile(np.arange(columns), CLASS_ROWS)
        z = jnp.concatenate([z.reshape(-1, latent_dim) for z in latents.values()])
        y = one_hot(np.concatenate(list(labels.values())))
        images = to_unit(draw(params, model_state, z, y))
        ends = np.cumsum([len(own) for own in labels.values()])[:-1]
        return dict(zip(labels, jnp.split(images, ends)))

    def figures(params, model_state, batch):
        key = rng.stream(jax.random.key(config.sample.seed), "figures")
        made = shown(params, model_state, key)
        columns = {"classes": min(num_classes, MAX_CLASSES)}
        return {
            name: plots.grid(plots.to_uint8(images), columns.get(name, WALK_STEPS))
            for name, images in made.items()
        }

    return Experiment(
        init=init,
        loss_fn=None,
        eval_fn=eval_fn,
        sample=sample,
        sample_classes=num_classes > 0,
        figures=figures,
        make_train_step=make_train_step,
        init_opt=lambda tx, params: {
            "generator": tx.init(params["generator"]),
            "discriminator": discriminator_optimizer(config).init(params["discriminator"]),
        },
        averaged=lambda params: {"generator": params["generator"]},
        settle=settle if standing and config.eval.standing_samples else None,
    )


def discriminator_optimizer(config):
    """That of config.optim, at a rate of its own; its schedule, too, counts training steps."""
    optim, objective = config.optim.to_dict(), config.objective
    del optim["accumulate_steps"]
    peak = objective.d_lr_ratio * optim.pop("lr")
    schedule = make_schedule(
        peak, optim.pop("schedule"), optim.pop("warmup_steps"), config.num_train_steps
    )
    every = objective.d_steps
    return make_optimizer(optim.pop("name"), lambda count: schedule(count // every), **optim)


def to_unit(x):
    """[-1, 1] -> [0, 1], what is outside cut off."""
    return jnp.clip((x + 1) / 2, 0.0, 1.0)


def _check(config, class_names):
    """Refuses what cannot be; returns the number of classes that the players are told, or 0."""
    model, objective, augment = config.model, config.objective, config.augment
    pixels = config.data.pixels
    require(pixels == "symmetric", "data.pixels", pixels, "'symmetric': images in [-1, 1]")
    for key in ("latent_dim", "blocks", "expansion", "group"):
        require(model[key] >= 1, f"model.{key}", model[key], "at least 1")
    for key in ("generator_features", "discriminator_features"):
        sizes = tuple(model[key])
        whole = len(sizes) > 0 and all(type(n) is int and n >= 1 for n in sizes)
        require(whole, f"model.{key}", sizes, "whole numbers, at least 1")
    momentum = model.norm_momentum
    require(0 <= momentum < 1, "model.norm_momentum", momentum, "in [0, 1)")
    num_classes = len(class_names) if model.conditional else 0
    if model.conditional and num_classes < 2:
        raise UserError(f"config.data.name='{config.data.name}' has no classes to learn")

    loss = choose(LOSSES, objective.loss, "objective.loss")
    smoothing = objective.label_smoothing
    require(0 <= smoothing < 1, "objective.label_smoothing", smoothing, "in [0, 1)")
    idle = smoothing > 0 and not loss.smooths
    require(not idle, "objective.label_smoothing", smoothing, f"0 with loss '{objective.loss}'")
    for key in ("d_steps", "penalty_interval"):
        require(objective[key] >= 1, f"objective.{key}", objective[key], "at least 1")
    for key in ("r1", "r2", "gradient_penalty", "lecam"):
        value = objective[key]
        require(0 <= value < np.inf, f"objective.{key}", value, "at least 0 and finite")
    ratio = objective.d_lr_ratio
    require(0 < ratio < np.inf, "objective.d_lr_ratio", ratio, "above 0 and finite")
    idle = objective.lecam > 0 and loss.relativistic
    require(not idle, "objective.lecam", objective.lecam, "0 with loss 'relativistic'")
    idle = objective.penalty_interval > 1 and not (
        objective.r1 or objective.r2 or objective.gradient_penalty
    )
    require(not idle, "objective.penalty_interval", objective.penalty_interval, "1 without any")
    accumulate = config.optim.accumulate_steps
    require(accumulate == 1, "optim.accumulate_steps", accumulate, "1 with experiment 'gan'")
    parts = objective.d_steps * (config.num_devices or jax.device_count())
    require(
        config.batch_size % parts == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of devices x objective.d_steps = {parts}",
    )

    choose(tuple(AUGMENTATIONS), augment.name, "augment.name")
    for name in augment.policy:
        choose(OPERATIONS[augment.name], name, "augment.policy")
    require(0 <= augment.p <= 1, "augment.p", augment.p, "in [0, 1]")
    require(0 <= augment.target < 1, "augment.target", augment.target, "in [0, 1)")
    for key in ("interval", "speed_images"):
        require(augment[key] >= 1, f"augment.{key}", augment[key], "at least 1")
    blind = augment.name == "ada" and augment.target > 0 and not loss.signed
    text = f"0 with loss '{objective.loss}', whose logits have no sign that says real or made"
    require(not blind, "augment.target", augment.target, text)
    samples = config.eval.standing_samples
    require(samples >= 0, "eval.standing_samples", samples, "at least 0")
    return num_classes
