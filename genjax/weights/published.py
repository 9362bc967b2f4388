"""Where published weights come from, and where they are on this machine."""

import dataclasses
from pathlib import Path

from genjax.data.sources import cache_root
from genjax.download import RemoteFile, fetch
from genjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights as its publisher has it, and under what licence."""

    file: RemoteFile
    licence: str


# toshas/torch-fidelity publishes the same bytes as weights-inception-2015-12-05-6726825d.pth.
INCEPTION = Published(
    RemoteFile(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        95_628_359,
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "Apache-2.0",  # of tensorflow/models, whose download.tensorflow.org file was converted
)


def find(published, path=None):
    """Path of a file of weights: the one given, else the published one, downloaded if need be.

    Downloads are kept in, and files put there by hand taken from, `cache_root()/weights`; those are
    verified. A given file is not: it may be another one on purpose; its reader tells its SHA-256.

    Raises:
      UserError: there is no such file, it cannot be had, or is not the one expected.
    """
    if path is None:
        return fetch(published.file, cache_root() / "weights")
    path = Path(path).expanduser()
    if not path.is_file():
        file = published.file
        raise UserError(
            f"there are no weights at {path}; {file.name} (sha256 {file.sha256}) is published at "
            f"{file.url}: download it to that place"
        )
    return path
