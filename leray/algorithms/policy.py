"""What every policy offers, whatever algorithm trained it; no Ray in here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from leray.data.features import Features


class Policy(Protocol):
    """Acts on batches of observations, and saves itself as a LeRobot checkpoint folder."""

    @property
    def features(self) -> Features:
        """Observations the policy reads and the `action` it returns."""
        ...

    def act(self, observations: Mapping[str, NDArray[Any]], *, deterministic: bool) -> NDArray[Any]:
        """Return actions in the environment's units, shape [N, A].

        Args:
            observations: arrays of shape [N, ...] by feature name.
            deterministic: take the most likely action instead of sampling one.
        """
        ...

    def seed(self, seed: int) -> None:
        """Restart the random numbers that sampling draws."""
        ...

    def acting_block(self) -> Tensor:
        """Return all parameters that `act` needs as one flat float32 tensor, to be copied."""
        ...

    def load_acting_block(self, block: Tensor) -> None:
        """Take over parameters from another policy's `acting_block`."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and the processors."""
        ...
