"""The image classifiers, by name and sizes."""

from typing import Any

import flax.linen as nn

from genjax.models.airbench import Airbench
from genjax.models.cnn import Cnn
from genjax.models.resnet import ResNet


def _cnn(num_classes: int, dtype: str, **sizes: Any) -> nn.Module:
    return Cnn(num_classes, dtype=dtype, **sizes)


def _resnet(num_classes: int, dtype: str, blocks: tuple[int, ...], width: int) -> nn.Module:
    return ResNet(num_classes, blocks, width, dtype)


def _airbench(num_classes: int, dtype: str, features: tuple[int, ...]) -> nn.Module:
    return Airbench(num_classes, features, dtype)


# name -> (num_classes, dtype, **sizes) -> network, whose output is
# {"features": [B, d], "logits": [B, num_classes]}.
CLASSIFIERS = {"cnn": _cnn, "resnet": _resnet, "airbench": _airbench}
