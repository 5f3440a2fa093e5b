"""The RLlib config of an off-policy algorithm, generated from its policy's dataclass."""

from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_context import EnvContext

from leray.algorithms.offpolicy.learner import OffPolicyLearner
from leray.algorithms.offpolicy.module import PolicyModule
from leray.algorithms.rllib_options import OptionsConfig
from leray.algorithms.trainable import DataSource
from leray.data.lerobot.reader import DatasetReader
from leray.envs.config import EnvConfig
from leray.envs.goals import GoalTask, goal_task
from leray.envs.make import make_env
from leray.envs.named import named_env
from leray.envs.observation import ObservationMap, action_feature
from leray.envs.runner import CollectingEnvRunner
from leray.errors import ConfigError


class OffPolicyConfig(OptionsConfig):
    """The policy's options (see `OptionsConfig`) and those of collecting and storing.

    * `clock`: `sync` or `async`; None means sync without remote runners, async with them.
    * `replay_folder`: where replay is memory-mapped; None keeps it in memory.
    * `replay_slack`: rows kept for going back to a checkpoint.
    * `dataset_root`, `dataset_episodes`: demonstrations for the offline replay.
    * `online`: False trains from the dataset alone.
    * `goal_relative`: append goal-relative features to goal tasks' observations.
    """

    extra_options: ClassVar[frozenset[str]] = frozenset(
        {"clock", "replay_folder", "replay_slack", "dataset_root", "dataset_episodes", "online"}
        | {"goal_relative", "env_options", "updates_per_training_step"}
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = CollectingEnvRunner
        self.log_level = "ERROR"
        self.train_batch_size_per_learner = 256
        self.rollout_fragment_length = 1
        self.num_env_runners = 0
        self.max_requests_in_flight_per_env_runner = 2
        self.min_sample_timesteps_per_iteration = 1000
        self.min_train_timesteps_per_iteration = 0
        self.restart_failed_env_runners = True
        self.delay_between_env_runner_restarts_s = 0.0
        self.clock: str | None = None
        self.replay_folder: str | None = None
        self.replay_slack = 0
        self.dataset_root: str | None = None
        self.dataset_episodes: list[int] | None = None
        self.dataset_stats: dict[str, Any] | None = None
        self.online = True
        self.goal_relative = True
        self.env_options: EnvConfig | None = None
        self.updates_per_training_step = 64

    def prepare(self, options: dict[str, Any], batch_size: int) -> None:
        """Set the policy's options and the batch size of a run."""
        self.training(**options)
        self.train_batch_size_per_learner = batch_size

    def place(
        self,
        *,
        online: bool,
        replay_folder: str,
        replay_slack: int,
        dataset: DataSource | None,
        total_steps: int,
    ) -> None:
        """Set where experience of a run comes from and lies.

        Raises:
            ConfigError: the dataset is to be read in a way that has no effect here.
        """
        self.online = online
        self.replay_folder, self.replay_slack = replay_folder, replay_slack
        if dataset is not None:
            self._refuse_picture_options(dataset)
            self.dataset_root, self.dataset_episodes = dataset.root, dataset.episodes
            if dataset.held_out:
                reader = DatasetReader.open(Path(dataset.root), episodes=dataset.episodes)
                kept = [number for number in reader.episodes if number not in dataset.held_out]
                self.dataset_episodes = kept
        self.min_sample_timesteps_per_iteration = 0  # one training step per iteration

    def pace(self, clock: str, fragment_length: int) -> None:
        """Set the clock of a run and the steps per fragment."""
        self.clock = clock
        self.rollout_fragment_length = fragment_length

    def validate(self) -> None:
        """Check what RLlib cannot know."""
        super().validate()
        self.policy_config()
        if self.num_learners > 1:
            raise ConfigError(
                f"num_learners={self.num_learners}: off-policy algorithms learn in one process; "
                "give 0 (in this process) or 1 (in its own)"
            )
        if self.clock not in (None, "sync", "async"):
            raise ConfigError(f"clock={self.clock}: allowed are sync, async, None")
        if self.clock == "async" and self.num_env_runners == 0 and not self.in_evaluation:
            raise ConfigError("clock=async needs num_env_runners >= 1")
        if self.dataset_root is not None and self.dataset_stats is None:
            self.dataset_stats = DatasetReader.open(Path(self.dataset_root)).stats
        if self.env_options is not None and self.online and not self.in_evaluation:
            with closing(make_env(self.env_options)) as env:
                action_feature(env)  # what is wrong with it is said here, not in an actor
        if not self.online and self.dataset_root is None:
            raise ConfigError("online=False needs dataset_root")

    @property
    def resolved_clock(self) -> str:
        """The clock in force."""
        return self.clock or ("sync" if self.num_env_runners == 0 else "async")

    def goal_task(self) -> GoalTask | None:
        """Return how the environment rewards goals, or None if it has no goals.

        It keeps an environment of its own open, which answers.
        """
        options = named_env(self, self.env_config)
        if options is None:
            return None
        env = make_env(options)
        return goal_task(env, ObservationMap(env, goal_relative=self.goal_relative).goals)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the module that carries the policy (RLlib's name)."""
        return RLModuleSpec(
            module_class=PolicyModule,
            model_config={"policy": self.policy_config(), "dataset_stats": self.dataset_stats},
        )

    def get_default_learner_class(self) -> type[OffPolicyLearner]:
        """Return the learner (RLlib's name)."""
        return OffPolicyLearner

    def make_single_env(self, creator: Any, context: EnvContext) -> gym.Env[Any, Any]:
        """Build one environment: by RLlib's creator if it knows one, else by LeRay's names."""
        options = named_env(self, context)
        return creator(context) if options is None else make_env(options)

    def _refuse_picture_options(self, dataset: DataSource) -> None:
        """Refuse what concerns pictures, or the decoding of them."""
        flags = {
            "--num_workers": (dataset.num_workers, 0),
            "--dataset.memory_limit_mb": (dataset.memory_limit_mb, None),
            "--dataset.use_imagenet_stats": (dataset.use_imagenet_stats, True),
            "--dataset.image_transforms.enable": (dataset.image_transforms.enable, False),
        }
        for flag, (value, default) in flags.items():
            if value != default:
                raise ConfigError(
                    f"{flag}={str(value).lower()}: {self.policy_config().type} holds the dataset "
                    "in memory and reads no pictures; drop the flag"
                )
