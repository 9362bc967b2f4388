"""Prepares datasets; some without TensorFlow.

Prepared datasets are ordinary TFDS folders in array_record format:
`tfds.data_source(name, data_dir=..., split=...)` reads them, with or without TensorFlow.
"""

import contextlib
import difflib
import io
import os
import pathlib
import re

import tensorflow_datasets as tfds

from genjax.data.builders.cifar10 import Cifar10
from genjax.data.builders.digits import Digits
from genjax.data.builders.mnist import FashionMnist, Mnist
from genjax.errors import UserError, one_line
from genjax.files import cache_root, user_path

BUILDERS = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "cifar10": Cifar10,
}

_DISK = re.compile(
    "No space left|Disk quota|Read-only file system|Permission denied|write.. failed"
)


def prepare(name: str, data_dir: str | os.PathLike) -> pathlib.Path:
    """Prepares a dataset under `data_dir`, unless it is prepared already; returns its folder.

    The four datasets of `BUILDERS` need no TensorFlow; others of TFDS's catalogue are prepared by
    TFDS, which may need it. Original files are kept in `data_dir/downloads/name`, and are taken
    from there if a user put them there.

    TFDS writes into a folder with a random name and renames it at the end, so an interrupted
    preparation has no effect, and of two at the same time the first to end wins.

    Args:
      name: of TFDS's catalogue, also `name/config`.
      data_dir: the TFDS data directory.

    Raises:
      UserError: unknown name, no network, wrong file, TensorFlow missing, folder not writable.
    """
    data_dir = user_path(data_dir, "config.data.data_dir")
    builder = _builder(name, data_dir)
    folder = pathlib.Path(builder.data_dir)
    if not _is_prepared(folder):
        _download_and_prepare(builder, name, folder)
    if not _is_prepared(folder):  # TFDS takes any folder of that name for a prepared one
        raise UserError(f"{folder} holds no prepared dataset; delete that folder and run again")
    return folder


def _is_prepared(folder: pathlib.Path) -> bool:
    return (folder / "dataset_info.json").is_file()


def _builder(name: str, data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    arguments = {"data_dir": data_dir, "file_format": "array_record"}
    try:
        return BUILDERS[name](**arguments) if name in BUILDERS else tfds.builder(name, **arguments)
    except tfds.core.DatasetNotFoundError as error:
        catalogue = {*BUILDERS, *tfds.list_builders(with_community_datasets=False)}
        nearest = difflib.get_close_matches(name, sorted(catalogue)) or sorted(BUILDERS)
        raise UserError(
            f"no dataset {name!r} in TFDS's catalogue; the nearest names are {', '.join(nearest)}"
        ) from error
    except ImportError as error:
        raise _needs_tensorflow(name, error) from error
    except (ValueError, AssertionError) as error:
        # A name TFDS cannot parse, an unknown config, or data already there in another format.
        raise UserError(
            f"cannot prepare {name!r} in {data_dir}: {_reason(error)}; "
            "correct the name or choose another data_dir"
        ) from error


def _download_and_prepare(
    builder: tfds.core.DatasetBuilder, name: str, folder: pathlib.Path
) -> None:
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
            builder.download_and_prepare()
    except ImportError as error:
        raise _needs_tensorflow(name, error) from error
    except (OSError, RuntimeError, tfds.download.DownloadError) as error:
        # The disk, as Python says it or as ArrayRecord does, or TFDS's own downloads.
        if isinstance(error, RuntimeError) and not _DISK.search(str(error)):
            raise
        if not _is_prepared(folder):  # else another process was first, and the rename failed
            option = "GENJAX_CACHE" if cache_root() in folder.parents else "config.data.data_dir"
            raise UserError(
                f"cannot prepare {name} in {folder}: {_reason(error)}; make room, or set {option} "
                "to a folder that can be written"
            ) from error


def _needs_tensorflow(name: str, error: ImportError) -> UserError:
    return UserError(
        f"preparing {name} needs a package that is not installed ({_reason(error)}): run "
        f"`pip install -e .[prepare]`, then `python launch.py --mode=prepare "
        f"--config.data.name={name}`; training itself does not need it"
    )


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:400]
