"""From coarse to fine: a run for each of config.sizes.

Each run starts with the picture and the optimizer's state of the one before; its workdir is a
folder of the full run's.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import files
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.fields import field, is_set, require
from genjax.runner.restore import saved_state
from genjax.runner.terminal import say
from genjax.typing import Params, Shape

SIZE_FIELDS = {
    "sizes": field(
        (512,), "longer sides of the result, from coarse to fine", at_least=1, nonempty=True
    ),
    "size_steps": field((), "steps at each; (): num_train_steps", items=int, at_least=1),
    "size_index": field(0, "which of the sizes this run is", at_least=0),
    "init_from": field("", "the workdir of the size before", only_with=is_set("size_index")),
}


def check_sizes(config: ConfigDict) -> None:
    """Raises a UserError for sizes that do not go together."""
    sizes, steps, index = config.sizes, config.size_steps, config.size_index
    require(list(sizes) == sorted(set(sizes)), "sizes", sizes, "from small to large")
    fits = not steps or len(steps) == len(sizes)
    require(fits, "size_steps", steps, f"empty, or {len(sizes)} numbers of at least 1")
    require(index < len(sizes), "size_index", index, f"less than {len(sizes)}, as many as sizes")


def check_picture(config: ConfigDict) -> None:
    """Raises a UserError for other data than the content picture, which is the only one."""
    name, content = config.data.name, f"picture:{config.content}"
    fits = name in ("", SHARED["data"]["name"].default, content)
    require(
        fits, "data.name", name, f"empty: the picture is that of config.content={config.content}"
    )


def check_full_run(config: ConfigDict) -> None:
    """Raises a UserError for fields that the full run of several sizes sets itself."""
    single = len(config.sizes) == 1
    fits = single or config.size_index == 0
    require(fits, "size_index", config.size_index, "0: every size is trained in turn")
    fits = single or not config.init_from
    require(fits, "init_from", config.init_from, "empty: each size starts from the one before")


def config_of_size(config: ConfigDict, index: int, init_from: str | Path = "") -> ConfigDict:
    """Returns the config of the run of one size.

    Args:
      config: of the full run.
      index: into config.sizes.
      init_from: the workdir of the size before.
    """
    config = config.copy_and_resolve_references()
    config.size_index, config.init_from = index, str(init_from)
    return config


def folder_of_size(config: ConfigDict, workdir: str | Path, index: int) -> Path:
    """Returns the workdir of the run of one size."""
    return Path(workdir) / f"size_{config.sizes[index]:05d}"


def enlarged_state(before: ConfigDict, workdir: str, image_shape: Shape) -> tuple[Params, Any]:
    """Returns the picture and the optimizer's state of the size before, at another size.

    Args:
      before: the finished config of that run.
      workdir: of that run.
      image_shape: of the result.

    Returns:
      (parameters, optimizer state) as NumPy arrays. Arrays of the picture's shape are resized, all
      others are as they were.
    """
    allow = ("eval.", "sample.", "init_from")
    _, state = saved_state(before, workdir, "latest", allow)

    def resized(x):
        x = np.asarray(x)
        return _resized(x, *image_shape[:2]) if x.shape[-3:] == before.data.image_shape else x

    return jax.tree.map(resized, (state.params, state.opt_state))


def _resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes [..., H, W, C]; positive values, such as squares of gradients, stay positive."""
    shape = (*x.shape[:-3], height, width, x.shape[-1])
    return np.asarray(jax.image.resize(x, shape, method="bilinear", antialias=False))


def copy_result(folder: Path, workdir: Path, report: dict[str, Any]) -> None:
    """Copies picture and report of the last size to the full run's workdir."""
    for path in sorted((folder / "samples").iterdir()):
        (workdir / "samples").mkdir(exist_ok=True)
        with files.whole_file(workdir / "samples" / path.name) as partial:
            shutil.copy(path, partial)
        say(f"picture saved to {workdir / 'samples' / path.name}")
    files.write_json(workdir / "report.json", json.loads(json.dumps(report)))
