"""How many updates are due: the replay ratio, held exactly. Pure arithmetic, no Ray."""

import math
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(slots=True)
class Pacing:
    """Counts environment steps and updates, and says which side is behind.

    The ratio is taken as the fraction it stands for: 0.1 is one tenth, to the last update.
    """

    utd_ratio: float
    """Updates per environment step."""
    steps_before_learning: int
    """Environment steps before the first update is due; none of them is made up for."""
    warmup_updates: int = 0
    """Updates due with the first step after those, beyond the ratio."""
    env_steps: int = 0
    """Environment steps taken so far."""
    updates: int = 0
    """Updates taken so far while collecting."""
    _ratio: Fraction = field(init=False, repr=False)

    def __post_init__(self) -> None:
        exact = Fraction(self.utd_ratio)
        self._ratio = exact.limit_denominator(1_000_000) or exact

    @property
    def updates_due(self) -> int:
        """Updates that may be taken now without exceeding the ratio."""
        learning_steps = self.env_steps - self.steps_before_learning
        if learning_steps <= 0:
            return 0
        return max(0, int(learning_steps * self._ratio) + self.warmup_updates - self.updates)

    def steps_allowed(self, in_flight: int, slack: int) -> int:
        """Return how many more environment steps may be asked for.

        Those that the next update needs always may, so that neither side waits for the other.

        Args:
            in_flight: steps asked for and not yet received.
            slack: further steps that collection may run ahead of learning.
        """
        paced = max(0, self.updates - self.warmup_updates)
        needed = self.steps_before_learning + math.ceil((paced + 1) / self._ratio)
        return max(0, needed + slack - self.env_steps - in_flight)
