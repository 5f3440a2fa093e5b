"""How many updates are due: the replay ratio, held exactly. Pure arithmetic, no Ray."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pacing:
    """Counts environment steps and updates, and says which side is behind."""

    utd_ratio: float
    """Updates per environment step."""
    steps_before_learning: int
    """Environment steps before the first update is due; none of them is made up for."""
    env_steps: int = 0
    """Environment steps taken so far."""
    updates: int = 0
    """Updates taken so far while collecting."""

    @property
    def updates_due(self) -> int:
        """Updates that may be taken now without exceeding the ratio."""
        learning_steps = max(0, self.env_steps - self.steps_before_learning)
        return max(0, int(learning_steps * self.utd_ratio) - self.updates)

    def steps_allowed(self, in_flight: int, slack: int) -> int:
        """Return how many more environment steps may be asked for.

        Args:
            in_flight: steps asked for and not yet received.
            slack: steps that collection may run ahead of learning.
        """
        learned = self.steps_before_learning + self.updates / self.utd_ratio
        return max(0, int(learned) + slack - self.env_steps - in_flight)
