"""Writes the codes of a trained VQ-VAE, the data of an autoregressive prior.

  python -m experiments.codes --config=configs/vqvae_cifar10.py --workdir=runs/vqvae_cifar10

The file, <workdir>/codes_<step>.npz, holds "train" and "test", integers [N, h, w] in the order of
the dataset, "train_labels" and "test_labels" [N], "num_codes", K, "codebook", float32 [K, D], and
the decoder, so that a prior trained on the file (`configs/vqvae_prior_cifar10.py`) draws images.
"""

from pathlib import Path

import jax
import numpy as np

import launch
from experiments import evaluation, run, vqvae
from experiments.command import run_main
from genjax import files, rng
from genjax.data.dataset import eval_batches
from genjax.errors import UserError
from genjax.train.parallel import is_main


def write_codes(config, workdir, step="latest"):
    """Writes the codes of a checkpoint ("latest", "best" or a number); returns the file's path."""
    if config.experiment != "vqvae":
        raise UserError(f"config.experiment='{config.experiment}' has no codes; vqvae has")
    built, state, step = evaluation.restored(config, workdir, step)
    tree = (state.eval_params, state.model_state)
    codebook = built.parallel.to_local(state.model_state)["codebook"]["codes"]

    def codes(tree, batch):
        rngs = rng.Rngs(jax.random.key(0), 0, batch["index"])
        seen = built.transform(batch, rngs, train=False)
        found = built.experiment.eval_fn(*tree, seen, rngs)["codes"]
        return {"codes": found, "label": batch["label"]}

    mapped = built.parallel.compile_map(codes)
    size = built.parallel.round_up(config.eval.batch_size)
    arrays = {"num_codes": config.model.num_codes, "codebook": np.asarray(codebook)}
    params = built.parallel.to_local(state.eval_params)
    arrays |= vqvae.decoder_arrays(config, config.data.image_shape, params)
    dtype = np.uint8 if config.model.num_codes <= 256 else np.uint16
    for name, data in (("train", built.train_data), ("test", built.eval_data)):
        parts = []
        for batch in eval_batches(data, size, built.parallel.rows(size)):
            mask = batch.pop("mask")
            parts.append({k: v[mask] for k, v in mapped(tree, batch).items()})
        arrays[name] = np.concatenate([p["codes"] for p in parts]).astype(dtype)
        arrays[f"{name}_labels"] = np.concatenate([p["label"] for p in parts])
    path = Path(workdir) / f"codes_{step:08d}.npz"
    if is_main():
        with files.whole_file(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
    run.say(f"codes {arrays['train'].shape} and {arrays['test'].shape} in {path}")
    return path


def main(argv):
    run.set_up_process()
    if not launch.WORKDIR.value:
        raise UserError("--workdir=DIR of the trained VQ-VAE is missing")
    write_codes(launch.CONFIG.value, launch.WORKDIR.value, launch.STEP.value)


if __name__ == "__main__":
    run_main(main, launch.DEFAULT_CONFIG)
