"""Files of codes: what a trained VQ-VAE writes, and an autoregressive prior learns from.

  python launch.py --config=configs/vqvae_cifar10.py --mode=codes

writes <workdir>/codes_<step>.npz with "train" and "test", integers [N, h, w] in the order of the
dataset, "train_labels" and "test_labels" [N], "num_codes", K, "codebook", float32 [K, D], and the
decoder, by which a prior trained on the file (`configs/vqvae_prior_cifar10.py`) samples images.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from genjax import files, plots
from genjax.data.dataset import Dataset, eval_batches
from genjax.data.transforms import clip_to_unit
from genjax.models.vqvae import VqDecoder
from genjax.rng import Rngs
from genjax.runner.restore import restored_run
from genjax.runner.run import Run
from genjax.runner.terminal import say
from genjax.train.parallel import is_main
from genjax.typing import AnyArray, Array, Float, Int, ModelState, Params

Decode = Callable[[Int[AnyArray, "b h w"]], Float[Array, "b hx wx c"]]


def write_codes(
    config: ConfigDict, workdir: str | Path, source: dict[str, str], step: str = "latest"
) -> Path:
    """Writes the codes of a trained VQ-VAE's data.

    Args:
      config: of the VQ-VAE.
      workdir: of its run.
      source: unused; every mode is given it.
      step: of the checkpoint: "latest", "best" or a number.

    Returns:
      The path of the file.
    """
    del source
    run, state, step = restored_run(config, workdir, step)
    tree = run.eval_tree(state)
    params, model_state = run.parallel.to_local(tree)
    arrays = {
        "num_codes": config.model.num_codes,
        "codebook": np.asarray(model_state["codebook"]["codes"]),
        **decoder_arrays(run.family.decoder, params["decoder"]),
    }
    dtype = np.uint8 if config.model.num_codes <= 256 else np.uint16
    splits = {"train": run.train_data, "test": run.eval_data}
    for name, (codes, labels) in _encode_splits(run, tree, splits).items():
        arrays[name], arrays[f"{name}_labels"] = codes.astype(dtype), labels
    path = Path(workdir) / f"codes_{step:08d}.npz"
    if is_main():
        with files.whole_file(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
    say(f"codes {arrays['train'].shape} and {arrays['test'].shape} saved to {path}")
    return path


def _encode_splits(
    run: Run, tree: tuple[Params, ModelState], splits: Mapping[str, Dataset]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns {name: (codes [N, h, w], labels [N])} of whole splits.

    Raises:
      PixelsNotFinite: the encoder gives NaN or infinity, which have a nearest code, too.
    """

    def encode(tree, batch):
        rngs = Rngs(jax.random.key(0), 0, batch["index"])
        prepared = run.transform(batch, rngs, train=False)
        values = run.family.evaluate(*tree, prepared, rngs)
        kept = {"codes": values["codes"], "distance": values["commitment"]}
        return {**kept, "label": batch["label"]}

    mapped = run.parallel.compile_map(encode)
    size = run.parallel.round_up(run.config.eval.batch_size)
    encoded = {}
    for name, data in splits.items():
        parts = []
        for batch in eval_batches(data, size, run.parallel.rows(size)):
            mask = batch.pop("mask")
            parts.append({k: v[mask] for k, v in mapped(tree, batch).items()})
        joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        plots.check_finite(joined["distance"], f"encoded images of {data.split}")
        encoded[name] = joined["codes"], joined["label"]
    return encoded


def decoder_arrays(decoder: VqDecoder, params: Params) -> dict[str, np.ndarray | str]:
    """Returns a decoder and its parameters as the arrays that `load_decoder` reads."""
    fields = {k: getattr(decoder, k) for k in ("channels", "width", "halvings", "blocks")}
    weights = flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    arrays = {f"decoder/{name}": weight for name, weight in weights.items()}
    return arrays | {"decoder_fields": json.dumps(fields)}


def load_decoder(arrays: Mapping[str, np.ndarray]) -> Decode | None:
    """Returns what turns codes into images, from the arrays of a file of codes.

    Args:
      arrays: as `write_codes` saves them.

    Returns:
      codes [B, h, w] -> images [B, H, W, C] in [0, 1]; None if the file has no decoder.

    Raises:
      KeyError, TypeError, ValueError: the file's decoder lacks something.
    """
    if "decoder_fields" not in arrays:
        return None
    decoder = VqDecoder(**json.loads(str(arrays["decoder_fields"])))
    named = {k.removeprefix("decoder/"): arrays[k] for k in arrays if k.startswith("decoder/")}
    params, codebook = unflatten_dict(named, sep="/"), jnp.asarray(arrays["codebook"])

    def decode(codes):
        return clip_to_unit(decoder.apply({"params": params}, codebook[codes]))

    return decode
