"""Imitation as an RLlib Algorithm: its config, and the driver of one or several learners."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
from ray.exceptions import RayTaskError
from ray.rllib.core import ALL_MODULES, COMPONENT_LEARNER_GROUP
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_context import EnvContext
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import LEARNER_RESULTS, NUM_ENV_STEPS_TRAINED_LIFETIME

from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.imitation.learner import validation_metrics
from leray.algorithms.imitation.module import ImitationModule
from leray.algorithms.imitation.remote import ImitationTorchLearner
from leray.algorithms.imitation.source import source_processor
from leray.algorithms.learners import on_learners
from leray.algorithms.placement.algorithm import PlacedAlgorithm
from leray.algorithms.processor import Processor
from leray.algorithms.rllib_options import OptionsConfig
from leray.algorithms.trainable import DataSource
from leray.envs.config import EnvConfig
from leray.envs.make import make_env
from leray.envs.named import named_env
from leray.envs.runner import CollectingEnvRunner
from leray.envs.spaces import to_spaces
from leray.errors import CheckpointError, ConfigError, LerayError

MAX_CALL_S = 1.0
"""How long the updates of one call to the learners take, about, before the caller may look around.
"""
UPDATES_PER_CALL = 64
"""Most updates of one call to the learners."""

T = TypeVar("T")


class ImitationConfig(OptionsConfig):
    """The policy's options (see `OptionsConfig`) and those of learning from a dataset.

    * `dataset`: what is learnt from.
    * `total_updates`: length of the run, which schedules of the learning rate refer to.
    * `train_batch_size`: samples per batch, of all learners together.
    """

    policy_config_class: ClassVar[type[ImitationPolicyConfig]]
    extra_options: ClassVar[frozenset[str]] = frozenset(
        {"dataset", "total_updates", "env_options", "goal_relative"}
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self._is_online = False  # RLlib: no env runners but for evaluation
        self.env_runner_cls = CollectingEnvRunner
        self.log_level = "ERROR"
        self.train_batch_size = self.policy_config_class.default_batch_size
        self.delay_between_env_runner_restarts_s = 0.0  # learners that fail wait so long, too
        self.dataset: DataSource | None = None
        self.total_updates = 100_000
        self.env_options: EnvConfig | None = None
        self.goal_relative = True
        self.processor: Processor | None = None
        self._processor_of: Any = None

    def prepare(self, options: dict[str, Any], batch_size: int) -> None:
        """Set the policy's options and the batch size; see `TrainableConfig`."""
        self.training(**options, train_batch_size=batch_size)

    def place(
        self, *, online: bool, dataset: DataSource | None, total_steps: int, **_: Any
    ) -> None:
        """Set the dataset and the length of the run; see `TrainableConfig`."""
        kind = self.policy_config().type
        if online:
            raise ConfigError(
                f"--use_online_training=true: {kind} learns from a dataset only; drop the flag, an "
                "environment then serves for evaluation"
            )
        self.dataset, self.total_updates = dataset, total_steps

    def pace(self, clock: str, fragment_length: int) -> None:
        """Do nothing: no experience is collected; see `TrainableConfig`."""

    @property
    def batch_size(self) -> int:
        """Samples per batch, of all learners together."""
        each = self._train_batch_size_per_learner
        size: int = self.train_batch_size if each is None else each * max(1, self.num_learners)
        return size

    def validate(self) -> None:
        """Check the options, and find out what the dataset means for the policy (RLlib's name).

        Raises:
            ConfigError: options do not fit together.
            DatasetError, FeatureMismatchError: the dataset is missing or does not fit the policy.
            CheckpointError: the pretrained policy is missing or damaged.
        """
        options = self.policy_config()
        if self.dataset is None:
            raise ConfigError(
                f"{options.type} learns from a dataset and has none: give --dataset.root=<folder> "
                "or --dataset.repo_id=<user/name>"
            )
        if self.batch_size % max(1, self.num_learners):
            raise ConfigError(
                f"--batch_size={self.batch_size} cannot be shared by {self.num_learners} "
                f"learners: give a multiple of {self.num_learners}"
            )
        if self._processor_of != (self.dataset, options):
            self.processor = source_processor(self.dataset, options)
            self._processor_of = (self.dataset, options)
        assert self.processor is not None
        if self.env is None:
            self.observation_space, self.action_space = to_spaces(self.processor.source_features)
        super().validate()

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the module that carries the policy (RLlib's name)."""
        return RLModuleSpec(
            module_class=ImitationModule,
            model_config={
                "policy": self.policy_config(),
                "processor": self.processor,
                "seed": self.seed or 0,
            },
        )

    def get_default_learner_class(self) -> type[ImitationTorchLearner]:
        """Return the learner (RLlib's name)."""
        return ImitationTorchLearner

    def make_single_env(self, creator: Any, context: EnvContext) -> gym.Env[Any, Any]:
        """Build one environment for RLlib's evaluation: by LeRay's names, or by RLlib's creator."""
        options = named_env(self, context)
        return creator(context) if options is None else make_env(options)


class Imitation(PlacedAlgorithm):
    """Learns from a dataset with one learner, or several that share each batch.

    It follows `Trainable`; `progress` is the number of updates. Each call of `train` takes updates
    for about a second, but not beyond `boundary`.
    """

    def setup(self, config: Any) -> None:
        """Build the learners and open the dataset (RLlib's name)."""
        self.boundary: int | None = None
        """Progress that a training step must not go beyond."""
        self.stop_requested = False
        """Set from outside to end a training step early."""
        self._updates = 0
        self._update_s: float | None = None
        try:
            super().setup(config)
        except RayTaskError as error:  # out of a learner's process
            if isinstance(error.cause, LerayError):
                raise error.cause from error
            raise
        self._on_learners(lambda learner: learner.open())

    def training_step(self) -> None:
        """Take updates until the boundary, for about a second (RLlib's name).

        Raises:
            LearnerError: a learner was lost.
        """
        before, began_s = self._updates, time.monotonic()
        goal = before + UPDATES_PER_CALL if self.boundary is None else self.boundary
        while self._updates < goal and not self.stop_requested:
            self._train(min(goal - self._updates, self._updates_per_call()))
            if time.monotonic() - began_s > MAX_CALL_S:
                break
        trained = (self._updates - before) * self.config.policy_config().batches_per_update
        self.metrics.log_value(
            (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME),
            trained * self.config.batch_size,
            reduce="lifetime_sum",
        )

    @property
    def num_updates(self) -> int:
        """Updates taken since the start of training."""
        return self._updates

    @property
    def progress(self) -> int:
        """What the run's length is counted in: updates."""
        return self._updates

    @property
    def env_steps(self) -> int:
        """Environment steps taken: none."""
        return 0

    def report(self) -> dict[str, float]:
        """Return the run's figures since the last report, averaged over the learners."""
        parts = self._on_learners(lambda learner: learner.report())
        return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}

    def validate(self) -> dict[str, float]:
        """Return the mean loss on held-out episodes, of the weights that act; empty without any."""
        return validation_metrics(self._on_learners(lambda learner: learner.validation_figures()))

    def checkpoint_boundary(self) -> None:
        """Do nothing: after each update the state can be saved."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the policy, with the weights that act, as a checkpoint folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._on_first(lambda learner: learner.save_pretrained(folder))

    def save_training_state(self, folder: Path) -> dict[str, Any]:
        """Write the learners' state and return the counters."""
        batches = self._on_first(lambda learner: learner.save_training_state(folder))
        return {"env_steps": 0, "updates": self._updates, "batches": batches}

    def load_training_state(self, folder: Path, counters: dict[str, Any]) -> None:
        """Go back to a saved state; weights come from the pretrained path of the config."""
        if "batches" not in counters:
            raise CheckpointError(
                f"{folder} does not say how many batches were used: it is not of a run that learns "
                "from a dataset; resume from another checkpoint"
            )
        batches = int(counters["batches"])
        loaded = self._on_learners(lambda learner: learner.load_training_state(folder, batches))
        self._updates = loaded[0]

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state and the number of updates (RLlib's name)."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        state["updates"] = self._updates
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and the number of updates (RLlib's name)."""
        state = dict(state)
        learners = state.pop(COMPONENT_LEARNER_GROUP, None)  # RLlib looks for env runners then
        super().set_state(state)
        if learners is not None:
            self.learner_group.set_state(learners)
            self._sync_evaluation()
        self._updates = state.get("updates", self._updates)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore what `save_to_path` wrote (RLlib's name)."""
        Checkpointable.restore_from_path(self, path, *args, **kwargs)  # it looks for env runners
        self._sync_evaluation()

    def _updates_per_call(self) -> int:
        """Return how many updates the learners take in about the time of a call."""
        if self._update_s is None:
            return 1
        return max(1, min(UPDATES_PER_CALL, int(MAX_CALL_S / max(self._update_s, 1e-9))))

    def _train(self, num_updates: int) -> None:
        began_s = time.monotonic()
        self._on_learners(lambda learner: learner.train(num_updates))
        self._update_s = (time.monotonic() - began_s) / num_updates
        self._updates += num_updates

    def _sync_evaluation(self) -> None:
        """Let RLlib's evaluation act with the present weights."""
        if self.eval_env_runner_group is not None:
            self.eval_env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, inference_only=True
            )

    def _on_learners(self, function: Callable[[ImitationTorchLearner], T]) -> list[T]:
        return on_learners(self.learner_group, function)

    def _on_first(self, function: Callable[[ImitationTorchLearner], T]) -> T:
        return on_learners(self.learner_group, function, first_only=True)[0]
