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

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_NOTOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"
_VGG_LICENCE = "CC-BY-4.0"  # of the original Caffe models

# The convolutions of VGG, by the variant and the depth of `genjax.models.vgg`.
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
            f"there are no weights at {path}; {file.name} ({file.digest}) is published at "
            f"{file.url}: download it to that place"
        )
    return path
