"""What makers say of their accelerators: the limits that a program is compared with."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, or one card.

    Attributes:
      flops: of dense matrix products in bfloat16, a second.
      bandwidth: of its memory, bytes a second.
      memory: bytes.
      kinds: beginnings of JAX's `device_kind`.
      source: the maker's page.
    """

    flops: float
    bandwidth: float
    memory: float
    kinds: tuple[str, ...]
    source: str


# A kind may begin as another one does: the longer beginning decides.
CHIPS = {
    "v5e": Chip(
        197e12,
        819e9,
        16e9,
        ("TPU v5 lite", "TPU v5e"),
        "https://cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": Chip(
        459e12,
        2765e9,
        95e9,
        ("TPU v5", "TPU v5p"),
        "https://cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": Chip(
        918e12,
        1638e9,
        32e9,
        ("TPU v6 lite", "TPU v6e"),
        "https://cloud.google.com/tpu/docs/v6e",
    ),
    "h100": Chip(
        989e12,
        3.35e12,
        80e9,
        ("NVIDIA H100 80GB HBM3",),
        "https://www.nvidia.com/en-us/data-center/h100/",
    ),
    "h200": Chip(
        989e12,
        4.8e12,
        141e9,
        ("NVIDIA H200",),
        "https://www.nvidia.com/en-us/data-center/h200/",
    ),
}


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip that JAX calls `device_kind`, or None for one that is not in `CHIPS`."""
    fitting = [
        (len(kind), chip)
        for chip in CHIPS.values()
        for kind in chip.kinds
        if device_kind.startswith(kind)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def roofline_seconds(chip: Chip, flops: float, moved: float = 0.0) -> float:
    """Returns the least seconds that a program could take on one chip (Williams et al. 2009).

    Args:
      chip: it runs there.
      flops: of the program.
      moved: bytes that it reads and writes, 0 where they are not known.
    """
    return max(flops / chip.flops, moved / chip.bandwidth)
