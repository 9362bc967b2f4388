"""Where images come from: TFDS directories and folders of a person's own pictures.

A source lists its examples and can say, without decoding one, whether they are still the same.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genjax.data.images import fit_image
from genjax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# A flat folder, or one without train/ and test/: every tenth file, in sorted order, is for testing.
TEST_EVERY = 10


@dataclasses.dataclass(frozen=True)
class Source:
    """One split, not yet decoded.

    Attributes:
      name, version, split: what it is called.
      fingerprint: changes when the data on disk changes; cheap to compute.
      class_names: tuple of str, empty where there are no labels.
      examples: called with an image shape, yields (uint8 image [H, W, C], int label).
      size: number of examples.
    """

    name: str
    version: str
    split: str
    fingerprint: str
    class_names: tuple[str, ...]
    size: int
    examples: Callable[[tuple[int, int, int]], Iterator[tuple[np.ndarray, int]]]


def find_source(name, split, data_dir=""):
    """Looks `name` up: `folder:/path`, or a TFDS name `dataset[/config][:version]`.

    Args:
      name: what `config.data.name` holds.
      split: "train", "test", or for TFDS any split expression such as "train[:90%]".
      data_dir: TFDS data directory; "" stands for $TFDS_DATA_DIR, then ~/tensorflow_datasets.

    Raises:
      UserError: there is no such data, with the command that would prepare it.
    """
    if name.startswith("folder:"):
        return _folder_source(Path(name.removeprefix("folder:")).expanduser(), split)
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
    info = json.loads((path / "dataset_info.json").read_text())
    if info.get("fileFormat") not in ("array_record", "parquet"):
        raise UserError(
            f"{path} holds {info.get('fileFormat', 'tfrecord')} files, which need TensorFlow "
            f"to be read; move it away and run: python launch.py --mode=prepare "
            f"--config.data.name={name}"
        )
    splits = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
    base = split.split("[")[0]
    if base not in splits:
        raise UserError(f"dataset '{name}' has no split '{base}'{_nearest(base, splits)}")

    # TFDS is imported only when there is something to decode: a cached run starts faster.
    def data_source():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(path)
        return builder.info, builder.as_data_source(split)

    class_names, size = _class_names(path), splits[base]
    if split != base:
        size = len(data_source()[1])

    def examples(image_shape):
        tfds_info, data = data_source()
        image_key, label_key = _feature_keys(name, tfds_info)
        for start in range(0, len(data), 1024):
            for example in data.__getitems__(list(range(start, min(start + 1024, len(data))))):
                label = int(example[label_key]) if label_key else 0
                yield fit_image(example[image_key], image_shape), label

    files = sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())
    fingerprint = _sha256(json.dumps([info, files], sort_keys=True))
    return Source(name, path.name, split, fingerprint, class_names, size, examples)


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
    if split not in ("train", "test"):
        raise UserError(f"a folder has the splits train and test, not '{split}'")
    top = root / split if has_splits else root
    files = sorted(p for p in top.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    # A class is the first folder below the top; pictures that lie flat have no class. The names
    # come from the whole folder, so that both splits number the classes alike.
    tops = [root / "train", root / "test"] if has_splits else [root]
    class_names = tuple(sorted({c.name for t in tops for c in t.iterdir() if c.is_dir()}))
    if not has_splits:
        if len(files) < 2:
            raise UserError(
                f"config.data.name: {root} holds {len(files)} pictures; at least 2 are needed"
            )
        files = [f for i, f in enumerate(files) if (i % TEST_EVERY == 0) == (split == "test")]
    if not files:
        raise UserError(f"config.data.name: {top} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")

    def label(path):
        first = path.relative_to(top).parts[0]
        return class_names.index(first) if first in class_names else 0

    def examples(image_shape):
        for path in files:
            try:
                with Image.open(path) as image:
                    yield fit_image(ImageOps.exif_transpose(image), image_shape), label(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise UserError(
                    f"cannot read the picture {path}: {error}; mend or remove it"
                ) from error

    stats = [(str(p.relative_to(top)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    fingerprint = _sha256(json.dumps([class_names, stats]))
    name = f"folder:{root.resolve()}"
    return Source(name, "0", split, fingerprint, class_names, len(files), examples)


def _nearest(word, choices):
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; it has: {', '.join(choices)}"


def _sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()
