"""How many steps there are, and how often things happen."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Cadence:
    """The length of a run and its intervals in steps; an interval of 0 means only at the end."""

    num_train_steps: int
    log_every_steps: int
    eval_every_steps: int
    sample_every_steps: int
    checkpoint_every_steps: int

    def due(self, every: int, step: int) -> bool:
        """Returns whether something of that interval is due after `step` steps."""
        return step == self.num_train_steps or (every > 0 and step % every == 0)

    def common_divisor(self) -> int:
        """Returns the most steps that fit into one dispatch without missing anything due."""
        return math.gcd(*dataclasses.astuple(self))
