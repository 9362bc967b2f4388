"""Runs the FID reference networks in PyTorch on random weights; see inception_reference.py.

Runs in an interpreter that has PyTorch, torch-fidelity and pytorch-fid, and imports nothing of this
project: python torch_inception.py FOLDER SEED. It reads FOLDER/images_*.npy, uint8 [N, H, W, 3],
and writes to the same folder zip.pth and legacy.pth, the weights in both formats of `torch.save`,
and features.npz, keys IMAGES/RESIZE/TAP.
"""

import sys
from pathlib import Path

import numpy as np
import pytorch_fid.inception as pytorch_fid
import torch
import torch_fidelity.feature_extractor_inceptionv3 as torch_fidelity

FOLDER, SEED = Path(sys.argv[1]), int(sys.argv[2])
TAPS = ["64", "192", "768", "2048", "logits_unbiased", "logits"]


class Untrained(torch_fidelity.FeatureExtractorInceptionV3):
    """The network without its published weights."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Ignores the weights."""


def random_weights() -> dict[str, torch.Tensor]:
    """Draws weights by He's initialisation, and normalisations near the unit."""
    torch_fidelity.load_state_dict_from_url = lambda *_, **__: None
    weights = Untrained("inception-v3-compat", TAPS).state_dict()
    generator = torch.Generator().manual_seed(SEED)
    for name, array in weights.items():
        if array.ndim > 1:
            array.normal_(0, (2 / array[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("bn.weight", "running_var")):
            array.uniform_(0.5, 1.5, generator=generator)
        elif array.is_floating_point():
            array.normal_(0, 0.1, generator=generator)
    return weights


weights = random_weights()
torch.save(weights, FOLDER / "zip.pth")
torch.save(weights, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)

fidelity = torch_fidelity.FeatureExtractorInceptionV3(
    "inception-v3-compat", TAPS, feature_extractor_weights_path=FOLDER / "zip.pth"
)
pytorch_fid.load_state_dict_from_url = lambda *_, **__: weights
fid = pytorch_fid.InceptionV3(output_blocks=(0, 1, 2, 3)).eval()

features = {}
with torch.no_grad():
    for path in sorted(FOLDER.glob("images_*.npy")):
        images = torch.from_numpy(np.load(path, allow_pickle=False)).permute(0, 3, 1, 2)
        for tap, values in zip(TAPS, fidelity(images)):
            features[f"{path.stem}/tf1/{tap}"] = values.numpy()
        for tap, values in zip(TAPS, fid(images / 255)):
            features[f"{path.stem}/torch/{tap}"] = values.mean((2, 3)).numpy()
np.savez(FOLDER / "features.npz", **features)
print(torch.__version__)
