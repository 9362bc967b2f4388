"""Training images/s of DDPM's U-Net: ours, and diffusers' in PyTorch, in turns on one device.

The same network of 35.7 million parameters, weights, batch and loss (noise predicted from noisy
32x32 images, mean squares), Adam. PyTorch runs channels-last and through torch.compile; on an
accelerator both compute in bfloat16.

pip install diffusers torch, in any Python that has this project's packages too
python -m benchmarks.unet_torch [--batch_size=128] [--steps=20] [--turns=3]
"""

import functools
import json
import statistics
import time
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from absl import flags

from benchmarks.diffusers_reference import UNET
from benchmarks.timing import take_turns
from genjax.runner.command import run_main
from genjax.runner.run import set_up_process
from genjax.weights.unet import from_diffusers

BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per step.")
STEPS = flags.DEFINE_integer("steps", 20, "Steps of a turn.")
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each.")
COMPILE = flags.DEFINE_bool("torch_compile", True, "Whether PyTorch may compile.")


class Theirs:
    """diffusers' UNet2DModel and torch.optim.Adam.

    Args:
      device: "cpu" or "cuda".
      half: whether it computes in bfloat16.

    Attributes:
      arrays: {name: array}, the initial weights.
    """

    def __init__(self, device: str, half: bool):
        torch.manual_seed(0)
        self.network = diffusers.UNet2DModel(**UNET)
        self.arrays = {k: v.numpy().copy() for k, v in self.network.state_dict().items()}
        self.device, self.half = device, half
        self.network.to(device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.network) if COMPILE.value else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4)

    def put(self, x: np.ndarray, t: np.ndarray, eps: np.ndarray) -> tuple[Any, ...]:
        """Puts a batch on the device."""
        nchw = lambda a: torch.from_numpy(a.transpose(0, 3, 1, 2).copy()).to(self.device)
        x, eps = (nchw(a).to(memory_format=torch.channels_last) for a in (x, eps))
        return x, torch.from_numpy(t).to(self.device), eps

    def step(self, x: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Makes a step; returns the loss."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            out = self.forward(x, t).sample
        loss = torch.mean((out.float() - eps) ** 2)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, batch: tuple[Any, ...], steps: int) -> tuple[float, float]:
        """Makes some steps; returns (seconds, last loss)."""
        start = time.perf_counter()
        for _ in range(steps):
            loss = self.step(*batch)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, loss.item()


class Ours:
    """`genjax.models.unet` with the same weights and optax's Adam.

    Args:
      arrays: {name: array}, as diffusers names them.
      half: whether it computes in bfloat16.
    """

    def __init__(self, arrays: dict[str, np.ndarray], half: bool):
        network, params = from_diffusers(arrays, 32)
        network = network.clone(dtype="bfloat16" if half else "float32")
        optimizer = optax.adam(2e-4)
        self.state = params, optimizer.init(params)

        def loss_fn(params, x, t, eps):
            return jnp.mean((network.apply({"params": params}, x, t) - eps) ** 2)

        def step(state, x, t, eps):
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_fn)(params, x, t, eps)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), loss

        self._step = jax.jit(step, donate_argnums=0)

    def put(self, x: np.ndarray, t: np.ndarray, eps: np.ndarray) -> tuple[Any, ...]:
        """Puts a batch on the device."""
        return jnp.asarray(x), jnp.asarray(t, jnp.float32), jnp.asarray(eps)

    def run(self, batch: tuple[Any, ...], steps: int) -> tuple[float, float]:
        """Makes some steps; returns (seconds, last loss)."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, loss = self._step(self.state, *batch)
        jax.block_until_ready(loss)
        return time.perf_counter() - start, float(loss)


def main(argv: list[str]) -> None:
    """Trains both in turns and prints the results."""
    del argv
    set_up_process()
    half = jax.default_backend() != "cpu"
    theirs = Theirs("cuda" if half else "cpu", half)
    ours = Ours(theirs.arrays, half)
    rng = np.random.default_rng(0)
    x, eps = rng.normal(size=(2, BATCH_SIZE.value, 32, 32, 3)).astype(np.float32)
    t = rng.integers(0, 1000, BATCH_SIZE.value)
    contestants = {"pytorch": theirs, "ours": ours}
    batches = {name: one.put(x, t, eps) for name, one in contestants.items()}
    first_loss = {name: one.run(batches[name], 1)[1] for name, one in contestants.items()}
    turn = lambda name: contestants[name].run(batches[name], STEPS.value)[0]
    turns = {name: functools.partial(turn, name) for name in contestants}
    seconds = take_turns(turns, TURNS.value)
    images = STEPS.value * BATCH_SIZE.value
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    report = {
        "first_loss": first_loss,
        "images_per_second": rate,
        "ratio": rate["ours"] / rate["pytorch"],
        "parameters": sum(a.size for a in theirs.arrays.values()),
        "batch_size": BATCH_SIZE.value,
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    run_main(main)
