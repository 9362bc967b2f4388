"""Downloads original files of datasets and weights, or takes them from where a user put them.

Their checksums are always verified. TFDS's own download manager also runs without TensorFlow, but
without a network it retries for minutes and leaves its temporary folders behind.
"""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import shutil
import urllib.request
import uuid
from typing import IO

from absl import logging

from genjax.errors import UserError, one_line

_TIMEOUT_SECONDS = 30  # without data, not for the full download


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
      url: its address.
      size: bytes.
      sha256: hexadecimal; "" if the publisher states an MD5 instead.
      md5: hexadecimal.
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
        """The kind and the digits of its checksum, for messages."""
        return f"sha256 {self.sha256}" if self.sha256 else f"md5 {self.md5}"


def fetch(file: RemoteFile, folder: str | os.PathLike) -> pathlib.Path:
    """Downloads a file into a folder, unless it is there, and returns its verified path.

    The file gets its name only when it is complete and verified, so neither an interrupted download
    nor two processes that fetch the same file at once do harm.

    Raises:
      UserError: the file cannot be downloaded, or is not the published one.
    """
    folder = pathlib.Path(folder)
    path = folder / file.name
    if path.exists():
        if _digest(path, file) != file.digest:
            raise UserError(
                f"{path} is not the file published at {file.url}: {_difference(path, file)}; "
                "delete it to download it again, or replace it with the right file"
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


def _download(url: str, output: IO[bytes]) -> None:
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
        f"cannot download {file.url} ({one_line(reason)}); check the network and try "
        f"again, or put the file {file.name} ({file.digest}) by hand into {folder}"
    )
