"""Published weights: where they come from, and where they are on this machine."""

import dataclasses
import os
from pathlib import Path

from genjax.download import RemoteFile, fetch
from genjax.errors import UserError
from genjax.files import cache_root, user_path


@dataclasses.dataclass(frozen=True)
class Published:
    """A published file of weights and its licence."""

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

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_NOTOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"
_VGG_LICENCE = "CC-BY-4.0"  # of the original Caffe models

# The convolutions of VGG, by variant and depth as in `genjax.models.vgg`.
VGG = {
    ("keras", 16): Published(
        RemoteFile(
            f"{_KERAS}vgg16/vgg16_{_NOTOP}", 58_889_256, "", "6d6bbae143d832006294945121d1f1fc"
        ),
        _VGG_LICENCE,
    ),
    ("keras", 19): Published(
        RemoteFile(
            f"{_KERAS}vgg19/vgg19_{_NOTOP}", 80_134_624, "", "253f8cb515780f3b799900260a226db6"
        ),
        _VGG_LICENCE,
    ),
    ("torchvision", 16): Published(
        RemoteFile(
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            553_433_881,
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
        "BSD-3-Clause",
    ),
    ("torchvision", 19): Published(
        RemoteFile(
            "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
            574_673_361,
            "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        ),
        "BSD-3-Clause",
    ),
}


def find(published: Published, path: str | os.PathLike | None = None) -> Path:
    """Finds a file of weights.

    Args:
      published: the file that is downloaded, unless it exists, to `cache_root()/weights`, and
        verified.
      path: a file to use instead. It is not verified: it may be another one on purpose, and its
        reader reports its SHA-256.

    Raises:
      UserError: there is no such file, it cannot be downloaded, or is not the published one.
    """
    if path is None:
        return fetch(published.file, cache_root() / "weights")
    path = user_path(path, "the weights")
    if not path.is_file():
        file = published.file
        raise UserError(
            f"there is no file of weights at {path}; {file.name} ({file.digest}) is published at "
            f"{file.url}: download it to that path"
        )
    return path
