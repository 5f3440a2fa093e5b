"""What `--env.*` may say: one dataclass per kind of world."""

import abc
from dataclasses import dataclass, field
from typing import Any

import draccus

from leray.errors import ConfigError


@dataclass(kw_only=True)
class EnvConfig(draccus.ChoiceRegistry, abc.ABC):  # type: ignore[misc]
    """Options every environment has; `--env.type` picks the subclass."""

    task: str = ""
    """Which task of this kind of environment, for example `PandaPickAndPlace-v3`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments handed to the environment's constructor, as JSON or YAML."""
    max_episode_steps: int | None = None
    """Time limit in steps that replaces the task's own; `null` keeps the task's."""
    goal_relative: bool = True
    """For goal tasks, append achieved-to-goal and gripper-to-object offsets to the observation."""

    def __post_init__(self) -> None:
        """Check what can be checked without building the environment."""
        if not self.task:
            raise ConfigError(
                f"--env.task is empty: name a task, for example --env.type={self.type} "
                "--env.task=PandaPickAndPlace-v3"
            )
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(
                f"--env.max_episode_steps={self.max_episode_steps}: give a number of steps >= 1"
            )

    @property
    def type(self) -> str:
        """The name under which this kind of environment is registered."""
        return str(self.get_choice_name(self.__class__))


@EnvConfig.register_subclass("gym")
@dataclass(kw_only=True)
class GymEnvConfig(EnvConfig):
    """Any Gymnasium id, LeRay's own Panda tasks among them."""


@EnvConfig.register_subclass("panda_gym")
@dataclass(kw_only=True)
class PandaGymEnvConfig(EnvConfig):
    """The PyBullet tasks of the `panda-gym` package (`pip install leray[panda-gym]`)."""
