"""The loss of a picture at one size, and the steps that lower it: pure functions.

  loss(x) = a sum_l |F_l(x) - F_l(c)|^2 + b sum_l d(S_l(x), S_l(s)) + g TV(x)

in the symbols of `experiments.style_transfer`, which reads the pictures c and s from files.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from genjax.models.vgg import VGG, average_pool
from genjax.objectives.style import (
    STYLE_LOSSES,
    self_similarity_distance,
    some_positions,
    total_variation,
)
from genjax.style.tiles import Tiles, ownership, sum_over_tiles
from genjax.train.optimizers import keep_in_box


@dataclasses.dataclass(frozen=True, eq=False)
class PictureLoss:
    """What a picture is to be like, but for the targets, which are arguments.

    Attributes:
      network: of both kinds of layers.
      objective: of a config.
      content_layers, style_layers: names of activations.
      layer_shares: of the style layers, adding up to 1.
      style_shares: of the styles, likewise.
      masks: float32 [R, H, W, 1], where each region of the picture is; None for one everywhere.
      tiles: windows to work through; None for the picture at once.
    """

    network: VGG
    objective: object
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    layer_shares: tuple[float, ...]
    style_shares: tuple[float, ...]
    masks: jax.Array | None
    tiles: Tiles | None

    @property
    def style(self):
        return STYLE_LOSSES[self.objective.style]

    def targets(self, params, content, styles, masks):
        """What the loss compares with, {"style", "style_scale", "content"}.

        Args:
          params: the network's.
          content: [1, H, W, 3].
          styles: pictures [H', W', 3], a list.
          masks: of each style, float32 [R, H', W', 1] or None.
        """
        target = self._style_target(params, styles, masks)
        found = {"style": target, "style_scale": self._style_scale(target)}
        if self.tiles is None and self.content_layers:
            seen = self._activations(params, content)
            found["content"] = {n: self._content_of(seen[n]) for n in self.content_layers}
        return found

    def __call__(self, image, params, targets, content):
        """(loss, {"content", "style", "total_variation"}, without their weights).

        Args:
          image, content: [1, H, W, 3].
          params: the network's.
          targets: of `targets`.
        """
        objective = self.objective
        if self.tiles is None:
            terms = self._terms_at_once(image, params, targets)
        else:
            terms = self._terms_by_tiles(image, params, targets, content)
        pixels = image.size if objective.relative else 1
        terms["total_variation"] = total_variation(image[0]) / pixels
        weights = {
            "content": objective.content_weight,
            "style": objective.style_weight,
            "total_variation": objective.tv_weight,
        }
        return sum(weights[name] * term for name, term in terms.items()), terms

    def _activations(self, params, images):
        """{layer: [H, W, C]} of one picture [1, H, W, 3]."""
        found = self.network.apply({"params": params}, images)
        return {name: x[0].astype(jnp.float32) for name, x in found.items()}

    def _describe(self, found, weights):
        """{layer: [sums of each region]} of the style layers."""
        return {n: [self.style.sums(found[n], w) for w in weights[n]] for n in self.style_layers}

    def _style_target(self, params, styles, masks):
        """Sums by position, averaged over the styles."""
        each = []
        for picture, own_masks in zip(styles, masks):
            found = self._activations(params, jnp.asarray(picture)[None])
            sums = self._describe(found, _regions(found, own_masks))
            per_position = lambda s: {k: v / s.get("n", 1.0) for k, v in s.items()}
            each.append({n: [per_position(s) for s in regions] for n, regions in sums.items()})
        mean = jax.tree.map(lambda *x: sum(w * v for w, v in zip(self.style_shares, x)), *each)
        return {n: [self.style.prepare(s) for s in regions] for n, regions in mean.items()}

    def _style_scale(self, target):
        """{layer: [what the distance to each region's target is divided by]}."""
        if not self.objective.relative or not self.style.additive:
            return {n: [jnp.ones(())] * len(regions) for n, regions in target.items()}

        def to_nothing(target):
            nothing = jax.tree.map(jnp.zeros_like, target)
            return self.style.distance({**nothing, "n": jnp.ones(())}, target)

        return {n: [to_nothing(t) for t in regions] for n, regions in target.items()}

    def _style_term(self, sums, targets):
        total = 0.0
        for share, name in zip(self.layer_shares, self.style_layers):
            target, scale = targets["style"][name], targets["style_scale"][name]
            triples = zip(sums[name], target, scale)
            each = [self.style.distance(s, t) / by for s, t, by in triples]
            total += share * sum(each) / len(each)
        return total

    def _content_of(self, x):
        return some_positions(x) if self.objective.content == "self_similarity" else x

    def _content_term(self, x, target):
        if self.objective.content == "self_similarity":
            return self_similarity_distance(self._content_of(x), target)
        scale = jnp.mean(target**2) if self.objective.relative else 1.0
        return jnp.mean((x - target) ** 2) / scale

    def _terms_at_once(self, image, params, targets):
        found = self._activations(params, image)
        sums = self._describe(found, _regions(found, self.masks))
        out = {"style": self._style_term(sums, targets)}
        each = [self._content_term(found[n], targets["content"][n]) for n in self.content_layers]
        out["content"] = sum(each) / max(len(each), 1)
        return out

    def _terms_by_tiles(self, image, params, targets, content):
        """The same; the content's activations are made anew in every window, which costs time."""

        def sums_of(start, owned, window, content, *masks):
            own = functools.partial(ownership, start, owned, self.tiles.window)
            found = self._activations(params, window)
            regions = _regions(found, masks[0] if masks else None, own)
            out = {"style": self._describe(found, regions), "content": {}}
            target = jax.lax.stop_gradient(self._activations(params, content))
            for n in self.content_layers:
                w = own(found[n].shape)[:, :, None]
                out["content"][n] = {
                    "squares": jnp.sum(w * (found[n] - target[n]) ** 2),
                    "scale": jnp.sum(w * target[n] ** 2),
                    "n": jnp.sum(w) * found[n].shape[-1],
                }
            return out

        masks = [] if self.masks is None else [self.masks]
        sums = sum_over_tiles(self.tiles, sums_of, image, content, *masks)
        out = {"style": self._style_term(sums["style"], targets)}
        scale = "scale" if self.objective.relative else "n"
        each = [s["squares"] / s[scale] for s in sums["content"].values()]
        out["content"] = sum(each) / max(len(each), 1)
        return out


def _regions(found, masks, own=None):
    """{layer: [weights [h, w] or None for ones of each region]}; `own` are a window's positions."""
    if masks is None:
        return {name: [own and own(x.shape)] for name, x in found.items()}
    weights = {}
    for name, x in found.items():
        pooled = masks
        while pooled.shape[1] >= 2 * x.shape[0]:
            pooled = average_pool(pooled)
        each = [pooled[r, :, :, 0] for r in range(masks.shape[0])]
        weights[name] = [m * own(x.shape) for m in each] if own else each
    return weights


def boxed(tx, clip):
    """An optimizer that, with `clip`, keeps pixels in [0, 1]."""
    return optax.chain(tx, keep_in_box(0.0, 1.0)) if clip else tx


def make_lbfgs_step(loss_fn, tx, ema):
    """One direction of L-BFGS and the search along it, several evaluations of the loss."""

    def train_step(state, batch):
        def value_fn(params):
            return loss_fn(params, state.model_state, batch, None, True)[0]

        value_and_grad = optax.value_and_grad_from_state(value_fn)
        value, grads = value_and_grad(state.params, state=state.opt_state)
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(state.params, updates)
        ema_params = ema.update(state.ema_params, params, state.step) if ema.enabled else {}
        tried = optax.tree.get(opt_state, "info").num_linesearch_steps
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), "line_search": tried}
        new_state = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params
        )
        return new_state, {**metrics, "grads": grads}

    return train_step
