"""What every policy offers, whatever algorithm trained it; no Ray in here."""

from collections.abc import Mapping, Sequence
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

    def reset(self, envs: Sequence[int] | None = None) -> None:
        """Forget what came before in some environments, as at the start of an episode.

        Args:
            envs: their numbers; None is all.
        """
        ...

    def act(
        self,
        observations: Mapping[str, NDArray[Any]],
        *,
        deterministic: bool,
        envs: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Return actions in the environment's units, shape [N, A].

        Args:
            observations: arrays of shape [N, ...] by feature name.
            deterministic: take the most likely action instead of sampling one, where the policy
                knows the difference.
            envs: which environment each row is of, for policies with memory; None is 0 to N - 1.
        """
        ...

    def seed(self, seed: int) -> None:
        """Restart the random numbers that sampling draws."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and the processors."""
        ...


class CollectingPolicy(Policy, Protocol):
    """A policy that env runners act with while it learns elsewhere."""

    def acting_block(self) -> Tensor:
        """Return all parameters that `act` needs as one flat float32 tensor, to be copied."""
        ...

    def load_acting_block(self, block: Tensor) -> None:
        """Take over parameters from another policy's `acting_block`."""
        ...
