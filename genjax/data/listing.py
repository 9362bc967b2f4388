"""Which files of a folder are pictures, and which of its folders are splits and classes.

The rules are those of a person who looks into the folder; what such a person would have to guess
is a UserError.
"""

import collections
import dataclasses
import decimal
import fnmatch
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from genjax.errors import UserError, one_line

# By the kinds of `genjax.data.images.FORMATS`, in all their spellings.
PICTURE_SUFFIXES = (
    *(".png", ".apng"),
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"),
    *(".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# Pictures that are not read here: a folder of them was meant to be a class.
OTHER_PICTURES = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".wdp"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw", ".psd", ".xcf"),
    *(".svg", ".eps", ".pdf", ".ai", ".ico", ".icns", ".tga", ".pcx", ".exr", ".hdr", ".dds"),
    *(".mpo", ".flif", ".qoi", ".sgi", ".rgb", ".ras", ".xbm", ".xpm", ".dcm", ".nii", ".npy"),
)
# What systems and tools leave behind, besides everything that begins with a dot; in lower case.
LEFT_BEHIND = (
    *("__macosx", "thumbs.db", "ehthumbs*.db", "desktop.ini", "icon\r", "~$*", "*~", "#*#"),
    *("@eadir", "@tmp", "#recycle", "#snapshot", "~snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "network trash folder", "temporary items"),
    *("__pycache__", "_vti_cnf", "*.partial", "*.part", "*.crdownload", "*.tmp", "*.swp"),
)

# A split is called by one of these words, alone or with words that say nothing ("train_set",
# "images-test", "val2017").
SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "tests", "testing", "tst"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"),
}
_EMPTY_WORDS = (
    *("set", "data", "dataset", "split", "folder", "dir", "subset", "part", "seg"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
)
_LISTED = 5  # names in a message


@dataclasses.dataclass
class Listing:
    """What is in a folder.

    Attributes:
      path: of the folder.
      pictures: the files in the folder itself.
      folders: {name: listing} of the folders in it, without those that hide.
      others: how many files there are of each suffix that is not a picture's, in the folder itself.
      hidden: how many entries hide, or were left behind.
    """

    path: Path
    pictures: list[Path]
    folders: dict[str, "Listing"]
    others: collections.Counter[str]
    hidden: int

    def walk(self) -> Iterator["Listing"]:
        """Yields this folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.walk()

    def all_pictures(self) -> list[Path]:
        """Returns the pictures in the folder and below it, in order."""
        return sorted(path for folder in self.walk() for path in folder.pictures)

    def all_others(self) -> collections.Counter[str]:
        """Returns `others` of the folder and all below it."""
        return sum((folder.others for folder in self.walk()), collections.Counter())

    def has_pictures(self) -> bool:
        """Returns whether there is a picture in the folder or below it."""
        return any(folder.pictures for folder in self.walk())

    def may_be_class(self) -> bool:
        """Returns whether a person would take the folder for a class.

        Annotations and notes make none; an empty folder and pictures that are not read do.
        """
        others = self.all_others()
        return self.has_pictures() or not others or any(s in OTHER_PICTURES for s in others)


def look_into(folder: Path, above: tuple[str, ...] = ()) -> Listing:
    """Lists a folder and all below it; links are followed.

    Raises:
      UserError: a folder may not be looked into.
    """
    listing = Listing(folder, [], {}, collections.Counter(), 0)
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise UserError(
            f"config.data.name: cannot look into the folder {one_line(folder)}: {error.strerror}"
        ) from error
    above = (*above, os.path.realpath(folder))
    for name, is_folder in found:
        path, suffix = folder / name, Path(name.strip()).suffix.lower()
        if hides(name):
            listing.hidden += 1
        elif is_folder:
            if os.path.realpath(path) not in above:  # a link to a folder that contains it
                listing.folders[name] = look_into(path, above)
        elif suffix in PICTURE_SUFFIXES:
            listing.pictures.append(path)
        else:
            listing.others[suffix or "no suffix"] += 1
    return listing


def hides(name: str) -> bool:
    """Returns whether a file or folder hides, or was left behind by a system or a tool."""
    return name.startswith(".") or any(fnmatch.fnmatchcase(name.lower(), p) for p in LEFT_BEHIND)


def split_of(name: str) -> str | None:
    """Returns which split the name of a folder means, "train", "test" or "val"; None for none."""
    meant = {_split_of_word(word) or word for word in _words(name) if word not in _EMPTY_WORDS}
    return meant.pop() if len(meant) == 1 and meant <= SPLIT_WORDS.keys() else None


def _words(name: str) -> list[str]:
    """Returns the words of a name in English; "TrainSet2" is "train", "set"."""
    if not name.isascii():
        return []
    return re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())


def _split_of_word(word: str) -> str | None:
    stem = re.sub(f"(?:{'|'.join(_EMPTY_WORDS)})$", "", word)
    return next((s for s, words in SPLIT_WORDS.items() if {word, stem} & set(words)), None)


def find_splits(root: Listing) -> dict[str, Listing]:
    """Returns {"train": folder, ...}, or {} for a folder that is not split.

    Raises:
      UserError: one would have to guess.
    """
    found = {name: split for name in root.folders if (split := split_of(name))}
    with_pictures = [name for name, folder in root.folders.items() if folder.has_pictures()]
    if not found:
        _check_mentioned(with_pictures, root)
        return {}
    others = [name for name in with_pictures if name not in found]
    among_classes = len(others) >= 2 and not any(root.folders[n].folders for n in with_pictures)
    if [name.lower() for name in found] == ["train"] and among_classes:
        return {}  # a class of trains
    where = f"config.data.name: {one_line(root.path)}"
    if root.pictures or others:
        beside = [p.name for p in root.pictures[:1]] or others
        raise UserError(
            f"{where} holds {_listed(found)}, which looks like a split, beside {_listed(beside)}: "
            "move one of them away, or name the folder that holds the classes"
        )
    splits: dict[str, Listing] = {}
    for name, split in found.items():
        if split in splits:
            same = [n for n, s in found.items() if s == split]
            raise UserError(f"{where} holds {_listed(same)}: which of them is meant? move one away")
        splits[split] = root.folders[name]
    if "train" not in splits or len(splits) == 1:
        lacks = "train" if "train" not in splits else "test or val"
        raise UserError(
            f"{where} holds {_listed(found)}, but no split {lacks}: add it, or name the folder "
            f"{one_line(root.path / next(iter(found)))}; of it, every tenth picture is for testing"
        )
    return splits


def _check_mentioned(names: list[str], root: Listing) -> None:
    """Raises a UserError where all names mention a split, and not all the same: trainA, testA."""
    mentioned = [{_split_of_word(word) for word in _words(name)} - {None} for name in names]
    if all(mentioned) and len(set().union(*mentioned)) > 1:
        raise UserError(
            f"config.data.name: {one_line(root.path)} holds {_listed(names)}: are these splits or "
            "classes? name the splits train/ and test/, with the classes in them"
        )


def find_classes(tops: Mapping[str, Listing]) -> dict[str, dict[str, list[Path]]]:
    """Finds the classes of all splits, which number them alike.

    A class is a folder directly in the folder of a split, with all pictures in it and below it.

    Args:
      tops: {split: folder}.

    Returns:
      {class: {split: pictures}} in the order of the classes' numbers; {} without classes.

    Raises:
      UserError: one would have to guess, or a class is empty.
    """
    classes: dict[str, dict[str, list[Path]]] = {}
    for split, top in tops.items():
        named = {name: folder for name, folder in top.folders.items() if folder.may_be_class()}
        if top.pictures and any(folder.has_pictures() for folder in named.values()):
            raise UserError(
                f"config.data.name: {one_line(top.path)} holds pictures ({top.pictures[0].name}) "
                f"beside folders of pictures ({_listed(named)}): move the pictures into a folder "
                "of their class, or the folders away"
            )
        if top.pictures:
            continue
        for name, folder in named.items():
            _check_class(name, folder, alone=len(named) == 1)
            pictures = classes.setdefault(class_name(name), {}).setdefault(split, [])
            pictures += folder.all_pictures()
    flat = [split for split, top in tops.items() if top.pictures]
    if classes and flat:
        split = next(split for split in tops if split not in flat)
        raise UserError(
            f"config.data.name: {one_line(tops[split].path)} holds classes, but "
            f"{one_line(tops[flat[0]].path)} holds pictures without: sort them into folders, or "
            "move them away"
        )
    return {name: classes[name] for name in in_order(classes)}


def _check_class(name: str, folder: Listing, alone: bool) -> None:
    where = f"config.data.name: {one_line(folder.path)}"
    if not folder.has_pictures():
        others = _suffixes(folder.all_others())
        holds = f"only files that are not read here ({others})" if others else "nothing"
        raise UserError(
            f"{where} would be a class, but holds {holds}: add pictures "
            f"({', '.join(PICTURE_SUFFIXES)}), or remove the folder"
        )
    inner = [n for n, f in folder.folders.items() if split_of(n) and f.has_pictures()]
    if inner and {n.lower() for n in inner} != {"train"}:
        raise UserError(
            f"{where} holds {_listed(inner)}: splits have to be above the classes, "
            f"{inner[0]}/{name}"
        )
    nested = [n for n, f in folder.folders.items() if f.has_pictures()]
    if alone and nested and not folder.pictures:
        raise UserError(
            f"{where} would be the only class: name that folder for the classes in it "
            f"({_listed(nested)})"
        )


def class_name(name: str) -> str:
    """Returns the name of a folder's class: printable Unicode, composed as most systems do."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def in_order(names: Collection[str]) -> list[str]:
    """Sorts names; numbers, and numbers in them, by their value."""
    if all(re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", name) for name in names):
        return sorted(names, key=lambda name: (decimal.Decimal(name), name))
    natural = lambda name: [(int(x), "") if x.isdecimal() else (-1, x) for x in _PARTS.split(name)]
    return sorted(names, key=lambda name: (natural(name), name))


_PARTS = re.compile("([0-9]+)")


def describe(count: int, names: Collection[str], root: Listing, top: Listing) -> str:
    """Says how many pictures there are, in which classes, and which files were left out.

    Args:
      count: of pictures.
      names: of the classes.
      root: the folder.
      top: the folder of the split in it, or `root`.
    """
    text = f"{count} pictures"
    if names:
        text += f" in {len(names)} class{'es' * (len(names) > 1)}: {_listed(names, 10)}"
    if top is not root:
        text += f" (of {one_line(class_name(top.path.name))}/)"
    looked_into = list(top.walk())
    if top is not root:  # the other splits speak for themselves
        apart = [folder for name, folder in root.folders.items() if not split_of(name)]
        looked_into += [root, *(inner for folder in apart for inner in folder.walk())]
    others = sum((folder.others for folder in looked_into), collections.Counter())
    hidden = sum(folder.hidden for folder in looked_into)
    parts = []
    if others:
        count = others.total()
        parts.append(f"{count} file{'s' * (count != 1)} ({_suffixes(others)})")
    if hidden:
        parts.append(f"{hidden} hidden or left behind by tools")
    return text + (f"; left out: {', '.join(parts)}" if parts else "")


def _suffixes(others: Mapping[str, int]) -> str:
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{count} {one_line(suffix)}" for suffix, count in ranked[:_LISTED]]
    return ", ".join(listed + ["..."] * (len(ranked) > _LISTED))


def _listed(names: Collection[str], most: int = _LISTED) -> str:
    names = [one_line(class_name(name)) for name in names]
    return ", ".join(names[:most] + [f"... ({len(names)} in all)"] * (len(names) > most))
