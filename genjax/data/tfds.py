"""Prepared TFDS folders as datasets, read without TensorFlow."""

import dataclasses
import difflib
import functools
import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from genjax.data.images import fit_image
from genjax.data.source import Index, Source, sha256_of
from genjax.errors import UserError, one_line
from genjax.files import cache_root, user_path
from genjax.messages import write_line
from genjax.shapes import Int, Shape, UInt8


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource(Source):
    """A split of the prepared TFDS folder `path`."""

    path: Path

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        positions = np.asarray(index).tolist()
        try:
            return self._read(positions, image_shape)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and its decoders raise almost anything
            bad = self._first_bad(positions, image_shape)
            raise _damaged(self.name, self.path, bad) from error

    def _read(self, positions: list[int], image_shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        data, image_key, label_key = _open(self.name, self.path, self.split, self.fingerprint)
        images = np.empty((len(positions), *image_shape), np.uint8)
        labels = np.zeros(len(positions), np.int32)
        for i, example in enumerate(data.__getitems__(positions)):
            images[i] = fit_image(example[image_key], image_shape)
            labels[i] = example[label_key] if label_key else 0
        return images, labels

    def _first_bad(self, positions: list[int], image_shape: Shape) -> str:
        for i in positions:
            try:
                self._read([i], image_shape)
            except Exception as error:
                return f"record {i} of split '{self.split}' ({one_line(error)[:200]})"
        return f"records {min(positions)} to {max(positions)} of split '{self.split}'"


def tfds_source(name: str, split: str, data_dir: str) -> TfdsSource:
    """Finds a split of a prepared TFDS dataset; prepares "digits", which needs no network.

    Args:
      name: `dataset[/config][:version]`.
      split: a split or a split expression, such as "train[:90%]".
      data_dir: see `tfds_data_dir`.

    Raises:
      UserError: the dataset is not prepared, is damaged, or has no such split.
    """
    path, info, class_names = _find(name, data_dir)
    splits = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
    files = sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())
    fingerprint = sha256_of(json.dumps([info, files], sort_keys=True))
    size = splits[split] if split in splits else _count(name, path, split, splits)
    return TfdsSource(name, path.name, split, fingerprint, class_names, size, path)


def tfds_data_dir(data_dir: str = "") -> Path:
    """Returns the TFDS folder that a run reads from and prepares into.

    `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    if data_dir:
        return user_path(data_dir, "config.data.data_dir")
    return user_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "TFDS_DATA_DIR")


def _find(name: str, data_dir: str) -> tuple[Path, dict[str, Any], tuple[str, ...]]:
    """Returns the folder of the newest version that can be read, its metadata and class names."""
    root = tfds_data_dir(data_dir)
    folders = _prepared_dirs(root, name)
    if not folders and name == "digits":  # made from the copy that scikit-learn brings
        folders = _prepared_dirs(cache_root() / "tfds", name)
        if not folders:
            from genjax.data import builders  # imports TFDS

            folders = [builders.prepare(name, cache_root() / "tfds")]
    if not folders:
        where = f" --config.data.data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"dataset '{name}' (config.data.name) is not in {root}; prepare it with: "
            f"python launch.py --mode=prepare --config.data.name={name}{where}"
        )
    problems = []
    for path in folders:
        try:
            found = path, *_metadata(name, path)
        except UserError as error:
            problems.append(error)
            continue
        if problems:
            write_line(f"warning: {problems[0]}; using version {path.name}")
        return found
    raise problems[0]


def _prepared_dirs(root: Path, name: str) -> list[Path]:
    """Lists the complete `<root>/<dataset>[/<config>]/<version>`, the newest first.

    Other folders beside them, such as a version that was moved away, are not versions.
    """
    name, _, version = name.partition(":")
    folders = [path.parent for path in (root / name).glob("*/dataset_info.json")]
    numbers = {p: tuple(map(int, p.name.split("."))) for p in folders if _VERSION.fullmatch(p.name)}
    chosen = [path for path in numbers if version in ("", path.name)]
    return sorted(chosen, key=numbers.__getitem__, reverse=True)


_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


def _metadata(name: str, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads dataset_info.json and the names of the classes; a UserError if they cannot be used."""
    try:
        info = json.loads((path / "dataset_info.json").read_text("utf-8"))
        for split in info["splits"]:
            str(split["name"]), sum(map(int, split["shardLengths"]))
        file_format, class_names = info.get("fileFormat"), _class_names(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(name, path, f"its metadata ({one_line(error)})") from error
    if file_format not in ("array_record", "parquet"):
        raise UserError(
            f"{path} holds {file_format or 'tfrecord'} files, which need TensorFlow to be read; "
            f"move it away and run: python launch.py --mode=prepare --config.data.name={name}"
        )
    return info, class_names


def _class_names(path: Path) -> tuple[str, ...]:
    """Returns the names of the first ClassLabel, numbers where TFDS kept no names."""
    features = json.loads((path / "features.json").read_text("utf-8"))["featuresDict"]["features"]
    for key, feature in features.items():
        if "classLabel" in feature:
            names = path / f"{key}.labels.txt"
            if names.exists():
                return tuple(names.read_text("utf-8").split("\n")[:-1])
            return tuple(str(i) for i in range(int(feature["classLabel"]["numClasses"])))
    return ()


def _count(name: str, path: Path, split: str, splits: Iterable[str]) -> int:
    """Counts the examples of a split expression such as "train[:90%]" or "train+test"."""
    words = re.findall(r"(?:^|\+)\s*([^\s\[+]+)", split)
    for word in words:
        if word not in splits:
            raise UserError(f"dataset '{name}' has no split '{word}'{_nearest(word, splits)}")
    try:
        import tensorflow_datasets as tfds  # slow

        return tfds.builder_from_directory(path).info.splits[split].num_examples
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"dataset '{name}': split '{split}' is not one ({reason})") from error


# Once a process and split, not once a call. TFDS is imported only when there is something to
# decode: a run whose data is cached starts faster.
@functools.lru_cache(maxsize=8)
def _open(name: str, path: Path, split: str, fingerprint: str) -> tuple[Any, str, str | None]:
    """Opens a split: (TFDS data source, key of the images, key of the labels or None)."""
    import tensorflow_datasets as tfds

    # Each process would log that OpenCV decodes faster.
    logging.getLogger("absl").addFilter(_not_about_opencv)
    builder = tfds.builder_from_directory(path)
    features = builder.info.features
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images:
        raise UserError(f"dataset '{name}' has no image feature; it has: {', '.join(features)}")
    return builder.as_data_source(split), images[0], labels[0] if labels else None


def _not_about_opencv(record: logging.LogRecord) -> bool:
    return "OpenCV" not in str(record.msg)


def _damaged(name: str, path: Path, what: str) -> UserError:
    return UserError(
        f"dataset '{name}' in {path} is damaged: {what}; delete that folder and run: "
        f"python launch.py --mode=prepare --config.data.name={name}"
    )


def _nearest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; it has: {', '.join(choices)}"
