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
    """A file as its publisher has it.

    Attributes:
      url: where it is.
      size: bytes.
      sha256: hexadecimal; "" where the publisher states none, but an MD5.
      md5: likewise.
    """

    url: str
    size: int
    sha256: str
    md5: str = ""

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def digest(self) -> str:
        """Its checksum, for people: the kind and the digits."""
        return f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}"


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
        if _digest(path, file) != file.digest:
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
        if _digest(part, file) != file.digest:
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


def _digest(path: pathlib.Path, file: RemoteFile) -> str:
    kind = file.digest.split()[0]
    with path.open("rb") as stream:
        return f"{kind} {hashlib.file_digest(stream, kind).hexdigest()}"


def _difference(path: pathlib.Path, file: RemoteFile) -> str:
    return (
        f"{path.stat().st_size} bytes with {_digest(path, file)} "
        f"instead of {file.size} bytes with {file.digest}"
    )


def _by_hand(file: RemoteFile, folder: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"cannot download {file.url} ({' '.join(reason.split())}); check the network and try "
        f"again, or put the file {file.name} ({file.digest}) by hand into {folder}"
    )
