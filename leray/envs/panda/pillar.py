"""The pillar that the gripper must get around, and on which side it did."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["left", "right"]
"""As seen from the robot's base: left is where y grows."""

_FINGERS_M = 0.025
"""How far the fingers reach to the side of the gripper's position."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pillar:
    """A round pillar on the table; it is seen, and touching it is noticed, but nothing bounces.

    Whether it is touched is a function of the gripper's position, so that relabelled goals and
    rewards agree with those of an episode.
    """

    x_m: float
    y_m: float
    radius_m: float
    height_m: float

    @property
    def touch_m(self) -> float:
        """Distance between its axis and the gripper's position at which the fingers touch it."""
        return self.radius_m + _FINGERS_M

    def touched(self, positions: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether a gripper there touches the pillar: metres [..., 3] -> [...]."""
        x, y, z = np.moveaxis(np.asarray(positions, np.float64), -1, 0)
        aside, along = x - self.x_m, y - self.y_m
        near = aside * aside + along * along < self.touch_m * self.touch_m
        return np.asarray(near & (z < self.height_m))

    def touched_by(self, position: list[float]) -> bool:
        """Return the same for one position given as plain numbers."""
        x, y, z = position
        aside, along = x - self.x_m, y - self.y_m
        near = aside * aside + along * along < self.touch_m * self.touch_m
        return near and z < self.height_m

    def side(self, path: NDArray[Any]) -> Side | None:
        """Return on which side a path goes around the pillar.

        Args:
            path: the gripper's positions in metres, shape [steps, 3]: of a recorded episode, the
                first three columns of `observation.state`.

        Returns:
            None if the path does not get past the pillar.
        """
        past = np.flatnonzero(path[:, 0] > self.x_m)
        if not len(past):
            return None
        return "left" if path[past[0], 1] > self.y_m else "right"
