"""Finds the images that a config names, whatever kind of data they are."""

from genjax.data.codes import PREFIX as CODES
from genjax.data.codes import codes_source
from genjax.data.folder import folder_source
from genjax.data.npz import npz_source
from genjax.data.picture import picture_source
from genjax.data.source import Source
from genjax.data.stacked import stacked_mnist
from genjax.data.tfds import tfds_data_dir, tfds_source
from genjax.errors import UserError, one_line
from genjax.files import cache_root, user_path

__all__ = ["cache_root", "find_source", "tfds_data_dir"]


def find_source(name: str, split: str, data_dir: str = "") -> Source:
    """Finds a split of a dataset by its name.

    Args:
      name: what `config.data.name` holds: a TFDS name `dataset[/config][:version]`,
        `stacked_mnist`, `folder:/path` of pictures, `picture:/path` of one, `npz:/path` of an
        array, or `codes:/path.npz` of integers.
      split: "train" or "test"; for a folder also "all"; for TFDS any split expression, such as
        "train[:90%]".
      data_dir: TFDS data directory; "" stands for $TFDS_DATA_DIR, then ~/tensorflow_datasets.

    Raises:
      UserError: there is no such data; the message has the command that would prepare it.
    """
    if name.startswith("folder:"):
        return folder_source(user_path(name.removeprefix("folder:"), "folder"), split)
    if name.startswith("picture:"):
        return picture_source(name.removeprefix("picture:"), split)
    if name.startswith("npz:"):
        return npz_source(user_path(name.removeprefix("npz:"), "npz"), split)
    if name.startswith(CODES):
        return codes_source(name, split)
    if name == "stacked_mnist":
        return stacked_mnist(split, tfds_source("mnist", split.split("[")[0], data_dir))
    if name.startswith(("/", "~", ".")) or "://" in name:
        path = user_path(name, "config.data.name")
        kind = {".npz": "npz"}.get(path.suffix, "picture" if path.is_file() else "folder")
        raise UserError(f"config.data.name={one_line(name)} is a path; say {kind}:{one_line(name)}")
    return tfds_source(name, split, data_dir)
