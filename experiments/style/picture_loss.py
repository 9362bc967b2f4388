"""The loss of style transfer by optimisation: a pure function of the picture.

  loss(x) = a sum_l |F_l(x) - F_l(c)|^2 + b sum_l d(S_l(x), S_l(s)) + g TV(x)

over layers l of a frozen VGG: F its activations, of the content c; S their statistics, of the style
s, compared by a distance d of `genjax.objectives.style`. Without files and without a config:

  loss = PictureLoss(FrozenVgg(VGG(("relu1_1", "relu2_1"))), ("relu2_1",), ("relu1_1", "relu2_1"))
  params = jax.jit(loss.vgg.init)(jax.random.key(0))
  targets = loss.targets(params, content, [style])
  value, terms = loss(image, params, targets, content)
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.style.frozen_vgg import FrozenVgg
from genjax.models.layers import average_pool_2x2
from genjax.models.vgg import reach
from genjax.numerics import nonzero
from genjax.objectives.style import (
    STYLE_LOSSES,
    StyleLoss,
    positions,
    self_similarity_distance,
    some_positions,
    total_variation,
)
from genjax.style.tiles import Tiles, ownership, sum_over_tiles
from genjax.typing import AnyArray, Array, Float, Params

CONTENT_LOSSES = ("squares", "self_similarity")

# {layer: one entry for each region of the picture}
Regions = dict[str, list[Any]]
Targets = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class PictureLoss:
    """The loss of a picture for one content and its styles; the targets are arguments.

    Attributes:
      vgg: returns the activations of all layers below.
      content_layers, style_layers: names of activations.
      content: "squares" of differences of activations, or "self_similarity" (Kolkin et al. 2019).
      style: a name in `genjax.objectives.style.STYLE_LOSSES`.
      content_weight, style_weight, tv_weight: of the three terms: a, b, g.
      relative: whether each term is divided by its value for a picture whose activations are 0, and
        the variation by the number of pixels: then weights mean the same with any network, size and
        style.
      layer_weights: of the style layers, in any scale; () for equal.
      style_shares: of the styles; they sum to 1.
      masks: where each region of the picture is, with its own targets; None for one region, the
        full picture. A region that pooling removes counts as nothing at the deeper layers.
      tiles: windows that are worked through one after another; None for the picture at once.
    """

    vgg: FrozenVgg
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content: str = "squares"
    style: str = "gram"
    content_weight: float = 1e4
    style_weight: float = 1e-2
    tv_weight: float = 0.0
    relative: bool = False
    layer_weights: tuple[float, ...] = ()
    style_shares: tuple[float, ...] = (1.0,)
    masks: Float[AnyArray, "r h w 1"] | None = None
    tiles: Tiles | None = None

    @property
    def style_loss(self) -> StyleLoss:
        """The statistics of a style and their distance."""
        return STYLE_LOSSES[self.style]

    @property
    def layer_shares(self) -> tuple[float, ...]:
        """Shares of the style layers, which sum to 1."""
        weights = self.layer_weights or (1.0,) * len(self.style_layers)
        return tuple(map(float, np.asarray(weights, np.float32) / np.sum(weights)))

    def targets(
        self,
        params: Params,
        content: Float[AnyArray, "1 h w 3"],
        styles: Sequence[Float[AnyArray, "_ _ 3"]],
        masks: Sequence[Float[AnyArray, "r _ _ 1"] | None] = (),
    ) -> Targets:
        """Computes what the loss compares a picture with.

        Args:
          params: of the VGG.
          content: in [0, 1].
          styles: pictures in [0, 1].
          masks: of each style, the counterparts of the picture's regions; () for none.

        Returns:
          {"style", "style_scale": regions of each style layer, "content": {layer: activations}};
          tiles compute the content's activations as they go.
        """
        target = self._style_target(params, styles, masks or (None,) * len(styles))
        targets = {"style": target, "style_scale": self._style_scale(target)}
        if self.tiles is None and self.content_layers:
            found = self._activations(params, content)
            targets["content"] = {n: self._content_of(found[n]) for n in self.content_layers}
        return targets

    def __call__(
        self,
        image: Float[Array, "1 h w 3"],
        params: Params,
        targets: Targets,
        content: Float[AnyArray, "1 h w 3"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Computes the loss of a picture.

        Args:
          image: in [0, 1], or around it.
          params: of the VGG.
          targets: those of `targets`.
          content: the content picture; only tiles need it.

        Returns:
          (loss, {"content", "style", "total_variation"}: the terms without their weights).
        """
        if self.tiles is None:
            terms = self._terms_at_once(image, params, targets)
        else:
            terms = self._terms_by_tiles(image, params, targets, content)
        pixels = image.size if self.relative else 1
        terms["total_variation"] = total_variation(image[0]) / pixels
        weights = {
            "content": self.content_weight,
            "style": self.style_weight,
            "total_variation": self.tv_weight,
        }
        return sum(weights[name] * term for name, term in terms.items()), terms

    def _activations(self, params, images):
        """Returns {layer: [h, w, C]} of one picture [1, H, W, 3]."""
        return {name: x[0] for name, x in self.vgg.activations(params, images).items()}

    # ---- Style ----

    def _style_sums(self, found, weights) -> Regions:
        """Returns the sums of the style statistics in each region, weighted by position."""
        sums = self.style_loss.sums
        return {n: [sums(found[n], w) for w in weights[n]] for n in self.style_layers}

    def _style_target(self, params, styles, masks) -> Regions:
        """Returns the sums per position, averaged over the styles."""
        each = []
        for picture, own_masks in zip(styles, masks, strict=True):
            found = self._activations(params, jnp.asarray(picture)[None])
            sums = self._style_sums(found, _region_weights(found, own_masks))
            each.append({n: [_per_position(s) for s in regions] for n, regions in sums.items()})
        mean = jax.tree.map(
            lambda *x: sum(w * v for w, v in zip(self.style_shares, x, strict=True)), *each
        )
        return {n: [self.style_loss.prepare(s) for s in regions] for n, regions in mean.items()}

    def _style_scale(self, target: Regions) -> Regions:
        """Returns what the distance to each region's target is divided by."""
        if not self.relative or not self.style_loss.additive:
            return {n: [jnp.ones(())] * len(regions) for n, regions in target.items()}

        def from_zero(target):
            zeros = jax.tree.map(jnp.zeros_like, target)
            return self.style_loss.distance({**zeros, "n": jnp.ones(())}, target)

        return {n: [from_zero(t) for t in regions] for n, regions in target.items()}

    def _style_term(self, sums: Regions, targets: Targets):
        total = 0.0
        for share, name in zip(self.layer_shares, self.style_layers, strict=True):
            target, scale = targets["style"][name], targets["style_scale"][name]
            if self.masks is None:
                target = [{**t, "full": True} for t in target]
            triples = list(zip(sums[name], target, scale, strict=True))
            # A style without activations, such as a black picture, is compared as it is.
            each = [self.style_loss.distance(s, t) / nonzero(by) for s, t, by in triples]
            if self.masks is None or not self.style_loss.additive:
                total += share * sum(each) / len(each)
                continue
            # A region that pooling removed from the picture or from a style counts as nothing.
            there = [(s["n"] > 0) & (t["n"] > 0) for s, t, _ in triples]
            present = sum(jnp.where(here, d, 0) for here, d in zip(there, each, strict=True))
            total += share * present / jnp.maximum(sum(h.astype(jnp.float32) for h in there), 1)
        return total

    # ---- Content ----

    def _content_of(self, x):
        return some_positions(x) if self.content == "self_similarity" else x

    def _content_term(self, x, target):
        if self.content == "self_similarity":
            return self_similarity_distance(self._content_of(x), target)
        scale = nonzero(jnp.mean(target**2)) if self.relative else 1.0
        return jnp.mean((x - target) ** 2) / scale

    # ---- Both ----

    def _terms_at_once(self, image, params, targets):
        found = self._activations(params, image)
        sums = self._style_sums(found, _region_weights(found, self.masks))
        each = [self._content_term(found[n], targets["content"][n]) for n in self.content_layers]
        content = sum(each) / max(len(each), 1)
        return {"style": self._style_term(sums, targets), "content": content}

    def _terms_by_tiles(self, image, params, targets, content):
        """Computes the same; the content's activations are computed again in every window."""

        def sums_of(start, owned, window, content, *masks):
            own = functools.partial(ownership, start, owned, self.tiles.window)
            found = self._activations(params, window)
            weights = _region_weights(found, masks[0] if masks else None, own)
            target = jax.lax.stop_gradient(self._activations(params, content))
            squares = {}
            for n in self.content_layers:
                w = own(found[n].shape)[:, :, None]
                squares[n] = {
                    "squares": jnp.sum(w * (found[n] - target[n]) ** 2),
                    "scale": jnp.sum(w * target[n] ** 2),
                    "n": jnp.sum(w) * found[n].shape[-1],
                }
            return {"style": self._style_sums(found, weights), "content": squares}

        masks = [] if self.masks is None else [self.masks]
        sums = sum_over_tiles(self.tiles, sums_of, image, content, *masks)
        scale = "scale" if self.relative else "n"
        each = [s["squares"] / nonzero(s[scale]) for s in sums["content"].values()]
        content = sum(each) / max(len(each), 1)
        return {"style": self._style_term(sums["style"], targets), "content": content}


def present_regions(
    masks: Float[AnyArray, "r h w 1"], layers: Sequence[str], depth: int
) -> dict[str, list[bool]]:
    """Tells for each layer of VGG-`depth` which regions are left of masks pooled to its size."""
    found = {}
    for name in layers:
        stride, _ = reach([name], depth)
        pooled = np.asarray(masks, np.float32)[..., 0]
        rows = pooled.shape[1] // stride
        while pooled.shape[1] >= 2 * rows:
            count, height, width = pooled.shape
            even = pooled[:, : height // 2 * 2, : width // 2 * 2]
            pooled = even.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4))
        found[name] = [bool(region.sum() > 0) for region in pooled]
    return found


def _per_position(sums: dict[str, Any]) -> dict[str, Any]:
    """Returns sums divided by the number of positions; "n" is then 1, or 0 of an empty region."""
    return {name: x / positions(sums) for name, x in sums.items()}


def _region_weights(
    found: dict[str, Array], masks: Array | None, own: Callable | None = None
) -> Regions:
    """Returns the weights [h, w] of each region's positions in each layer; None stands for ones.

    Args:
      found: activations [h, w, C] by layer.
      masks: [R, H, W, 1], or None for one region.
      own: shape of activations -> 1 at the positions of a window that are its own, [h, w].
    """
    if masks is None:
        return {name: [own and own(x.shape)] for name, x in found.items()}
    weights = {}
    for name, x in found.items():
        pooled = masks
        while pooled.shape[1] >= 2 * x.shape[0]:
            pooled = average_pool_2x2(pooled)
        each = [pooled[r, :, :, 0] for r in range(masks.shape[0])]
        weights[name] = [m * own(x.shape) for m in each] if own else each
    return weights
