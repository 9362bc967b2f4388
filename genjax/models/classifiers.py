"""The image classifiers, by name and sizes."""

from genjax.models.airbench import Airbench
from genjax.models.cnn import Cnn
from genjax.models.resnet import ResNet


def _cnn(num_classes, dtype, axis_name, **sizes):
    del axis_name  # it has no batch statistics
    return Cnn(num_classes, dtype=dtype, **sizes)


def _resnet(num_classes, dtype, axis_name, blocks, width):
    return ResNet(num_classes, blocks, width, axis_name, dtype)


def _airbench(num_classes, dtype, axis_name, features):
    return Airbench(num_classes, features, axis_name, dtype)


# name -> (num_classes, dtype, axis_name, **sizes) -> network, whose output is
# {"features": [B, d], "logits": [B, num_classes]}.
CLASSIFIERS = {"cnn": _cnn, "resnet": _resnet, "airbench": _airbench}
