"""What LeRay adds to RLlib's PPO and APPO so that `leray train` can drive them."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.debug import update_global_seed_if_necessary
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from leray.algorithms.learners import on_learners
from leray.algorithms.onpolicy import state
from leray.algorithms.onpolicy.policy import ActorCriticPolicy, actor_critic_processor
from leray.algorithms.onpolicy.runner import EPISODES, seed_of
from leray.algorithms.placement.algorithm import PlacedAlgorithm
from leray.data.features import check_compatible
from leray.envs.flat import FlatEnv
from leray.errors import CheckpointError, EnvError

_WINDOW = 100
"""Episodes that running means are taken over."""
MAX_STARVED_S = 60.0
"""How long the run may be without any living env runner before it gives up."""
_LOSSES = {
    "total_loss": "loss/total",
    "policy_loss": "loss/policy",
    "vf_loss": "loss/value",
    "mean_kl_loss": "train/kl",
    "curr_kl_coeff": "train/kl_coeff",
    "entropy": "train/entropy",
    "vf_explained_var": "train/explained_variance",
    "gradients_default_optimizer_global_norm": "train/grad_norm",
    "diff_num_grad_updates_vs_sampler_policy": "train/weight_staleness_updates",
}
"""From RLlib's names of a learner's figures to those that all algorithms share."""


class OnPolicyAlgorithm(PlacedAlgorithm):
    """Goes before RLlib's own algorithm among the bases of a class; follows `Trainable`.

    One call of `train` is one iteration of RLlib's: for PPO one train batch, which may go beyond
    `boundary` by less than a batch and one step of each environment.
    """

    def setup(self, config: Any) -> None:
        """Build runners and learner, and load pretrained weights (RLlib's name)."""
        env = FlatEnv(self.config.env_options)
        env.close()
        self._features, self._num_actions = env.features, env.num_actions
        super().setup(config)
        self.episodes: list[dict[str, Any]] = []
        """The newest finished episodes."""
        self.num_episodes = 0
        self.boundary: int | None = None
        self.stop_requested = False
        self._steps_before = 0
        self._figures: dict[str, float] = {}
        self._starved_since: float | None = None
        path = self.config.policy_config().pretrained_path
        if path is not None:
            self._load_pretrained(Path(path))
        self.checkpoint_boundary()

    def step(self) -> dict[str, Any]:
        """Go through one iteration and note what came of it (RLlib's name).

        Raises:
            EnvError: the environment failed in this process, or no env runner has been alive
                for a while.
        """
        steps = self.env_steps
        try:
            result: dict[str, Any] = super().step()
        except RuntimeError as error:
            if isinstance(error.__cause__, EnvError):  # RLlib wraps what the environment says
                raise EnvError(str(error.__cause__)) from error
            raise
        ended = result.get(ENV_RUNNER_RESULTS, {}).pop(EPISODES, [])
        if isinstance(ended, dict):  # RLlib unwraps a series of one item
            ended = [ended]
        self.num_episodes += len(ended)
        self.episodes = [*self.episodes, *ended][-_WINDOW:]
        figures = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
        values = {name: float(figures.get(key, math.nan)) for key, name in _LOSSES.items()}
        self._figures |= {name: value for name, value in values.items() if math.isfinite(value)}
        self._watch_runners(advanced=self.env_steps > steps)
        return result

    @property
    def env_steps(self) -> int:
        """Environment steps taken since the start of training."""
        path = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        return self._steps_before + int(self.metrics.peek(path, default=0))

    @property
    def num_updates(self) -> int:
        """Gradient steps taken since the start of training."""
        return int(self._on_learners(state.num_updates))

    @property
    def progress(self) -> int:
        """What the run's length is counted in: environment steps."""
        return self.env_steps

    def report(self) -> dict[str, float]:
        """Return the run's figures under the names that every algorithm shares."""
        metrics = self._figures | self.runner_figures()
        if self.episodes:
            metrics["train/episode_return"] = float(np.mean([e["return"] for e in self.episodes]))
            metrics["train/episode_length"] = float(np.mean([e["length"] for e in self.episodes]))
        success = [e["success"] for e in self.episodes if e["success"] is not None]
        if success:
            metrics["train/success_rate"] = float(np.mean(success))
        return metrics

    def validate(self) -> dict[str, float]:
        """Return nothing: experience is fresh, and none of it is held out."""
        return {}

    def checkpoint_boundary(self) -> None:
        """End all episodes and derive what follows from seed and step alone.

        So a run that goes on and one that is resumed here do the same, whatever the environment.
        """
        step, seed = self.env_steps, self.config.seed
        self._on_runners(lambda runner: runner.restart(step))
        self._on_learners(
            lambda _: update_global_seed_if_necessary("torch", seed_of(seed, step, 0))
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write the policy as a checkpoint folder."""
        ActorCriticPolicy(
            self.config.policy_config(),
            actor_critic_processor(self._features),
            self._on_learners(state.module_tensors),
            num_actions=self._num_actions,
        ).save_pretrained(folder)

    def save_training_state(self, folder: Path) -> dict[str, Any]:
        """Write the optimiser's state and return the counters."""
        state.write_state(folder, self._on_learners(state.learner_state))
        return {
            "env_steps": self.env_steps,
            "updates": self.num_updates,
            "num_episodes": self.num_episodes,
            "episodes": self.episodes,
        }

    def load_training_state(self, folder: Path, counters: dict[str, Any]) -> None:
        """Go back to a saved state; weights come from the pretrained path of the config."""
        stored = state.read_state(folder)
        try:
            self._on_learners(lambda learner: state.load_learner_state(learner, stored))
            self._steps_before += counters["env_steps"] - self.env_steps
            self.num_episodes = counters["num_episodes"]
            self.episodes = list(counters["episodes"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{folder} does not fit this run ({type(error).__name__}: {error}): resume with "
                "the options the run was started with"
            ) from error
        self.checkpoint_boundary()

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state and the counters (RLlib's name)."""
        stored: dict[str, Any] = super().get_state(*args, **kwargs)
        stored["leray"] = [self._steps_before, self.num_episodes, self.episodes]
        return stored

    def set_state(self, stored: dict[str, Any]) -> None:
        """Restore RLlib's state and the counters (RLlib's name)."""
        super().set_state(stored)
        self._steps_before, self.num_episodes, self.episodes = stored["leray"]

    def _load_pretrained(self, folder: Path) -> None:
        """Take over a checkpoint's weights, in the learner and in all runners."""
        policy = ActorCriticPolicy.from_pretrained(folder)
        check_compatible(
            policy.features,
            self._features,
            left_name=f"the policy in {folder}",
            right_name=f"environment {self.config.env_options.task}",
        )
        tensors = policy.tensors
        wrong = self._on_learners(lambda learner: state.load_module_tensors(learner, tensors))
        if wrong:
            raise CheckpointError(
                f"{folder} does not fit this policy; names or shapes differ for "
                f"{', '.join(wrong)}: use the --policy.type and network options the checkpoint "
                "was trained with"
            )
        weights = self._on_learners(state.acting_weights)
        # without a sequence number, runners apply weights whatever they have
        self._on_runners(lambda runner: runner.set_state({COMPONENT_RL_MODULE: weights}))

    def _watch_runners(self, *, advanced: bool) -> None:
        """Give up when remote runners are lost for good."""
        group = self.env_runner_group
        alive = not group.num_remote_env_runners() or group.num_healthy_remote_workers() > 0
        if advanced or alive:
            self._starved_since = None
            return
        if self._starved_since is None:
            self._starved_since = time.monotonic()
        elif time.monotonic() - self._starved_since > MAX_STARVED_S:
            raise EnvError(
                f"all {self.config.num_env_runners} env runners have been lost for "
                f"{MAX_STARVED_S:.0f} s: see their messages above, mend the cause, and resume"
            )

    def _on_runners(self, function: Callable[[Any], Any]) -> None:
        """Run a function on every env runner that has environments."""
        group = self.env_runner_group
        group.foreach_env_runner(function, local_env_runner=not group.num_remote_env_runners())

    def _on_learners(self, function: Callable[[Any], Any]) -> Any:
        """Run a function on every learner; return the first's result, as all are equal."""
        return on_learners(self.learner_group, function)[0]
