"""Gatys' optimisation in PyTorch, step by step: the worker of style_torch.py.

Runs in an interpreter that has PyTorch and imports nothing of this project:
python torch_style.py FOLDER. It reads, for every size, content_SIZE.npy and style_SIZE.npy,
float32 [H, W, 3], and weights.npz, kernels [kh, kw, in, out] and biases of VGG-19. Each line on
stdin is "SIZE STEPS"; the answer on stdout is the seconds, the last loss and the peak memory in MB.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

FOLDER = Path(sys.argv[1])
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCKS = (2, 2, 4, 4, 4)
CONTENT, STYLE = ("relu5_2",), tuple(f"relu{i}_1" for i in range(1, 6))
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 1e4, 1e-2, 30.0

arrays = np.load(FOLDER / "weights.npz", allow_pickle=False)
weights = {k: torch.from_numpy(v).to(DEVICE) for k, v in arrays.items()}
for name in [n for n in weights if n.endswith("kernel")]:
    weights[name] = weights[name].permute(3, 2, 0, 1).contiguous()
MEAN = torch.tensor([103.939, 116.779, 123.68], device=DEVICE).view(1, 3, 1, 1)


def features(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns VGG-19's activations of an image in [0, 1], [1, 3, H, W], up to relu5_2."""
    x, activations = image.flip(1) * 255 - MEAN, {}
    for block, count in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            name = f"{block}_{i}"
            x = F.conv2d(x, weights[f"conv{name}/kernel"], weights[f"conv{name}/bias"], padding=1)
            x = activations[f"relu{name}"] = F.relu(x)
            if name == "5_2":
                return activations
        x = F.max_pool2d(x, 2)


def gram(x: torch.Tensor) -> torch.Tensor:
    """Returns the Gram matrix of activations [1, C, H, W], over H W."""
    flat = x[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def load(name: str) -> torch.Tensor:
    """Reads a picture as [1, 3, H, W]."""
    picture = torch.from_numpy(np.load(FOLDER / name, allow_pickle=False))
    return picture.permute(2, 0, 1)[None].to(DEVICE)


class Transfer:
    """The optimisation at one size."""

    def __init__(self, size: int):
        content, style = load(f"content_{size}.npy"), load(f"style_{size}.npy")
        with torch.no_grad():
            self.content = {n: features(content)[n] for n in CONTENT}
            self.style = {n: gram(x) for n, x in features(style).items() if n in STYLE}
        self.image = content.clone().requires_grad_(True)
        self.adam = torch.optim.Adam([self.image], lr=0.02, betas=(0.99, 0.999), eps=0.1)

    def step(self) -> torch.Tensor:
        """Makes a step; returns the loss before it."""
        x, now = self.image, features(self.image)
        content = sum(((now[n] - self.content[n]) ** 2).mean() for n in CONTENT)
        style = sum(((gram(now[n]) - self.style[n]) ** 2).mean() for n in STYLE) / len(STYLE)
        tv = (x[..., 1:] - x[..., :-1]).abs().sum() + (x[..., 1:, :] - x[..., :-1, :]).abs().sum()
        loss = CONTENT_WEIGHT * content + STYLE_WEIGHT * style + TV_WEIGHT * tv
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            self.image.clamp_(0, 1)
        return loss


def peak_memory() -> float:
    """Returns the peak memory of the device, or of this process, in MB."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


torch.backends.cudnn.benchmark = True
torch.set_float32_matmul_precision("high")
torch.backends.cudnn.allow_tf32 = True
transfers = {}
print("ready", torch.__version__, DEVICE, flush=True)
for line in sys.stdin:
    size, steps = map(int, line.split())
    if size not in transfers:
        transfers.clear()
        transfers[size] = Transfer(size)
    start = time.perf_counter()
    for _ in range(steps):
        loss = transfers[size].step()
    loss = loss.item()
    print(time.perf_counter() - start, loss, peak_memory(), flush=True)
