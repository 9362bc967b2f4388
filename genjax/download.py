"""Original files over the network or put in place by hand, always checked by SHA-256.

For datasets and weights alike. TFDS's own download manager runs without TensorFlow too, but with no
network it retries for minutes and leaves its temporary folders behind.
"""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import shutil
import urllib.request
import uuid

from absl import logging

from genjax.errors import UserError

_TIMEOUT_SECONDS = 30  # of silence, not of the whole download


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher has it."""

    url: str
    size: int  # bytes
    sha256: str  # hexadecimal

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(file: RemoteFile, folder: str | os.PathLike) -> pathlib.Path:
    """Path of `file` inside `folder`, verified; downloaded only if it is not there yet.

    The file appears under its name only when it is complete and right, so an interrupted download
    does no harm, nor do two processes that fetch the same file at once.

    Raises:
        UserError: the file cannot be had, or is not the one expected.
    """
    folder = pathlib.Path(folder)
    path = folder / file.name
    if path.exists():
        if _sha256(path) != file.sha256:
            raise UserError(
                f"{path} is not the file published at {file.url}: {_difference(path, file)}; "
                "delete it to download it again, or put the right file in its place"
            )
        return path

    logging.info("Downloading %s (%.1f MB) to %s", file.url, file.size / 1e6, folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as output:
            _download(file.url, output)
        if _sha256(part) != file.sha256:
            raise _by_hand(file, folder, _difference(part, file))
        os.replace(part, path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _by_hand(file, folder, f"{type(error).__name__}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(url: str, output) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        shutil.copyfileobj(response, output)


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _difference(path: pathlib.Path, file: RemoteFile) -> str:
    return (
        f"{path.stat().st_size} bytes with sha256 {_sha256(path)} "
        f"instead of {file.size} bytes with sha256 {file.sha256}"
    )


def _by_hand(file: RemoteFile, folder: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"cannot download {file.url} ({' '.join(reason.split())}); check the network and try "
        f"again, or put the file {file.name} (sha256 {file.sha256}) by hand into {folder}"
    )
