"""Where images come from: TFDS directories and folders of a person's own pictures.

A source reads any of its examples by its place and can say, without decoding one, whether they are
still the same.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import logging
import os
import re
from pathlib import Path

import numpy as np

from genjax.data.images import fit_image, one_line, read_image
from genjax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# A flat folder, or one without train/ and test/: every tenth file, in sorted order, is for testing.
TEST_EVERY = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split, not yet decoded. Can be sent to another process; it opens its files there.

    Attributes:
      name, version, split: what it is called.
      fingerprint: changes when the data on disk changes; cheap to compute.
      class_names: tuple of str, empty where there are no labels.
      size: number of examples.
    """

    name: str
    version: str
    split: str
    fingerprint: str
    class_names: tuple[str, ...]
    size: int
    dtype = np.uint8  # of the images

    def __len__(self):
        return self.size

    def read(self, index, image_shape):
        """Decodes the examples `index` (int [B]).

        Returns:
          (uint8 images [B, H, W, C], int32 labels [B]).

        Raises:
          BadImage: a picture cannot be read; the first of them.
          UserError: the data is damaged, or its disk fails.
        """
        raise NotImplementedError


def find_source(name, split, data_dir=""):
    """Looks `name` up: a TFDS name `dataset[/config][:version]`, `stacked_mnist`, `folder:/path` of
    pictures, `picture:/path` of one, `npz:/path` of an array, `codes:/path.npz` of integers.

    Args:
      name: what `config.data.name` holds.
      split: "train" or "test", for a folder "all", too, and for TFDS any split expression such as
        "train[:90%]".
      data_dir: TFDS data directory; "" stands for $TFDS_DATA_DIR, then ~/tensorflow_datasets.

    Raises:
      UserError: there is no such data, with the command that would prepare it.
    """
    if name.startswith("folder:"):
        return _folder_source(Path(name.removeprefix("folder:")).expanduser(), split)
    if name.startswith("picture:"):
        from genjax.data.picture import picture_source  # which is a source

        return picture_source(name.removeprefix("picture:"), split)
    if name.startswith("npz:"):
        from genjax.data.npz import npz_source  # which is a source

        return npz_source(Path(name.removeprefix("npz:")).expanduser(), split)
    if name.startswith("codes:"):
        from genjax.data.codes import codes_source  # which is made of sources

        return codes_source(name, split)
    if name == "stacked_mnist":
        from genjax.data.stacked import stacked_mnist  # which is made of sources

        return stacked_mnist(split, _tfds_source("mnist", split.split("[")[0], data_dir))
    return _tfds_source(name, split, data_dir)


def cache_root():
    """$GENJAX_CACHE, else $XDG_CACHE_HOME/genjax, else ~/.cache/genjax."""
    if "GENJAX_CACHE" in os.environ:
        return Path(os.environ["GENJAX_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "genjax"


def tfds_data_dir(data_dir=""):
    """The TFDS data directory a run reads from and prepares into."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(chosen).expanduser()


def _tfds_source(name, split, data_dir):
    root = tfds_data_dir(data_dir)
    path = _prepared_dir(root, name)
    if path is None and name == "digits":  # embedded: made from scikit-learn's own copy
        path = _prepared_dir(cache_root() / "tfds", name)
        if path is None:
            from genjax.data import builders

            path = Path(builders.prepare(name, cache_root() / "tfds"))
    if path is None:
        where = f" --config.data.data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"dataset '{name}' (config.data.name) is not in {root}; prepare it with: "
            f"python launch.py --mode=prepare --config.data.name={name}{where}"
        )
    try:
        info = json.loads((path / "dataset_info.json").read_text())
        splits = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
        class_names = _class_names(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(name, path, f"its metadata ({one_line(error)})") from error
    if info.get("fileFormat") not in ("array_record", "parquet"):
        raise UserError(
            f"{path} holds {info.get('fileFormat', 'tfrecord')} files, which need TensorFlow "
            f"to be read; move it away and run: python launch.py --mode=prepare "
            f"--config.data.name={name}"
        )
    files = sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())
    fingerprint = _sha256(json.dumps([info, files], sort_keys=True))
    size = splits[split] if split in splits else _count(name, path, split, splits)
    return TfdsSource(name, path.name, split, fingerprint, class_names, size, path)


def _count(name, path, split, splits):
    """Number of examples of a split expression such as "train[:90%]" or "train+test"."""
    words = re.findall(r"(?:^|\+)\s*([^\s\[+]+)", split)
    for word in words:
        if word not in splits:
            raise UserError(f"dataset '{name}' has no split '{word}'{_nearest(word, splits)}")
    try:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(path).info.splits[split].num_examples
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"dataset '{name}': split '{split}' is not one ({reason})") from error


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource(Source):
    """A split of a prepared TFDS directory, `path`."""

    path: Path

    def read(self, index, image_shape):
        index = np.asarray(index).tolist()
        try:
            return self._read(index, image_shape)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and its decoders raise almost anything
            raise _damaged(self.name, self.path, self._first_bad(index, image_shape)) from error

    def _read(self, index, image_shape):
        data, image_key, label_key = self._open()
        images = np.empty((len(index), *image_shape), np.uint8)
        labels = np.zeros(len(index), np.int32)
        for i, example in enumerate(data.__getitems__(index)):
            images[i] = fit_image(example[image_key], image_shape)
            labels[i] = example[label_key] if label_key else 0
        return images, labels

    def _first_bad(self, index, image_shape):
        for i in index:
            try:
                self._read([i], image_shape)
            except Exception as error:
                return f"record {i} of split '{self.split}' ({one_line(error)[:200]})"
        return f"records {min(index)} to {max(index)} of split '{self.split}'"

    def _open(self):
        return _open_tfds(self.name, self.path, self.split, self.fingerprint)


# Once a process and split, not once a call. TFDS is imported only when there is something to
# decode: a cached run starts faster.
@functools.lru_cache(maxsize=8)
def _open_tfds(name, path, split, fingerprint):
    import tensorflow_datasets as tfds

    # Each process would be told that OpenCV decodes faster.
    logging.getLogger("absl").addFilter(_not_about_opencv)
    builder = tfds.builder_from_directory(path)
    image_key, label_key = _feature_keys(name, builder.info)
    return builder.as_data_source(split), image_key, label_key


def _not_about_opencv(record):
    return "OpenCV" not in str(record.msg)


def _damaged(name, path, what):
    return UserError(
        f"dataset '{name}' in {path} is damaged: {what}; delete that folder and run: "
        f"python launch.py --mode=prepare --config.data.name={name}"
    )


def _prepared_dir(root, name):
    """Newest `<root>/<dataset>[/<config>]/<version>` that was prepared whole, or None."""
    name, _, version = name.partition(":")
    folder = root / name
    found = [p.parent for p in folder.glob(f"{version or '*.*.*'}/dataset_info.json")]
    return max(found, key=lambda p: [int(n) for n in p.name.split(".")], default=None)


def _class_names(path):
    """Names of the classes of the first ClassLabel, numbers where TFDS kept no names."""
    features = json.loads((path / "features.json").read_text())["featuresDict"]["features"]
    for key, feature in features.items():
        if "classLabel" in feature:
            names = path / f"{key}.labels.txt"
            if names.exists():
                return tuple(names.read_text().split("\n")[:-1])
            return tuple(str(i) for i in range(int(feature["classLabel"]["numClasses"])))
    return ()


def _feature_keys(name, info):
    import tensorflow_datasets as tfds

    images = [k for k, f in info.features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in info.features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not images:
        raise UserError(
            f"dataset '{name}' has no image feature; it has: {', '.join(info.features)}"
        )
    return images[0], labels[0] if labels else None


def _folder_source(root, split):
    if not root.is_dir():
        raise UserError(f"config.data.name: there is no folder {root}")
    has_splits = (root / "train").is_dir() and (root / "test").is_dir()
    if split not in ("train", "test", "all"):
        raise UserError(f"a folder has the splits train, test and all, not '{split}'")
    has_splits &= split != "all"
    top = root / split if has_splits else root
    files = sorted(_pictures_below(top))
    # A class is the first folder below the top; pictures that lie flat have no class. The names
    # come from the whole folder, so that both splits number the classes alike, and from folders,
    # not pictures, so that a picture that cannot be read changes no label.
    tops = [root / "train", root / "test"] if has_splits else [root]
    class_names = tuple(sorted({c.name for t in tops for c in t.iterdir() if c.is_dir()}))
    if not has_splits:
        if len(files) < 2:
            raise UserError(
                f"config.data.name: {root} holds {len(files)} pictures; at least 2 are needed"
            )
        if split != "all":
            files = [f for i, f in enumerate(files) if (i % TEST_EVERY == 0) == (split == "test")]
    if not files:
        raise UserError(f"config.data.name: {top} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number.get(p.relative_to(top).parts[0], 0) for p in files], np.int32)
    described = [(str(p.relative_to(top)), *_status(p)) for p in files]
    return FolderSource(
        name=f"folder:{root.resolve()}",
        version="0",
        split=split,
        fingerprint=_sha256(json.dumps([class_names, described])),
        class_names=class_names,
        size=len(files),
        paths=tuple(map(str, files)),
        labels=labels,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """The pictures `paths` (tuple of str) with their `labels` (int32 [size])."""

    paths: tuple[str, ...]
    labels: np.ndarray

    def read(self, index, image_shape):
        images = np.empty((len(index), *image_shape), np.uint8)
        for i, place in enumerate(index):
            images[i] = read_image(self.paths[place], image_shape)
        return images, self.labels[index]


def _pictures_below(folder, above=()):
    """Paths of all files below `folder`, links followed, that are called like a picture."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    try:
        with os.scandir(folder) as entries:
            entries = [(entry.path, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise UserError(
            f"config.data.name: cannot look into the folder {one_line(folder)}: {error.strerror}"
        ) from error
    for path, is_folder in entries:
        if is_folder:
            yield from _pictures_below(path, (*above, real))
        elif path.lower().endswith(IMAGE_SUFFIXES):
            yield Path(path)


def _status(path):
    """What tells that a file was changed, its permissions among it."""
    try:
        status = path.stat()
    except OSError as error:  # a link to nothing: found when it is read
        return [error.strerror]
    return [status.st_size, status.st_mtime_ns, status.st_mode]


def _nearest(word, choices):
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; it has: {', '.join(choices)}"


def _sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()
