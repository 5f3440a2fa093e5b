"""What `--policy.*` may say that is common to all policies; each algorithm adds its own fields."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import draccus

from leray.errors import ConfigError

TRAINING_ONLY = {"training_only": True}
"""Metadata of a field that only training needs: it is not written to a checkpoint's `config.json`,
where LeRobot would refuse it."""


def require(condition: bool, message: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise `ConfigError(message)` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(kw_only=True)
class PolicyConfig(draccus.ChoiceRegistry, abc.ABC):  # type: ignore[misc]
    """Options every policy has; `--policy.type` picks the subclass.

    A subclass names, as `module:class`, the policy that acts and the RLlib config that trains it.
    """

    policy_path: ClassVar[str]
    algorithm_path: ClassVar[str]
    default_batch_size: ClassVar[int] = 256
    """Batch size where `--batch_size` does not say."""
    learns_online: ClassVar[bool] = True
    """Whether it can learn from experience that it collects itself."""
    reads_pictures: ClassVar[bool] = False
    """Whether it reads the pictures of a dataset."""

    device: str | None = None
    """Torch device of the learner (`cpu`, `cuda`, `cuda:1`, `mps`); `null` takes the best found."""
    pretrained_path: str | None = None
    """Checkpoint folder (`.../pretrained_model`), or policy `user/name` of the Hub, whose weights
    training starts from."""

    @property
    def type(self) -> str:
        """The name under which this policy is registered."""
        return str(self.get_choice_name(self.__class__))

    @property
    def batches_per_update(self) -> int:
        """Batches that each update takes."""
        return 1
