"""APPO as `leray train` drives it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ray.rllib.algorithms import appo as rllib

from leray.algorithms.appo.config import APPOPolicyConfig
from leray.algorithms.appo.learner import SettlingAPPOLearner
from leray.algorithms.onpolicy.algorithm import OnPolicyAlgorithm
from leray.algorithms.onpolicy.config import OnPolicyConfig
from leray.algorithms.onpolicy.options import ActorCriticConfig
from leray.errors import ConfigError

WAIT_FOR_SAMPLES_S = 0.2
"""How long an iteration waits for experience before it returns without."""


class APPOConfig(OnPolicyConfig, rllib.APPOConfig):  # type: ignore[misc]
    """RLlib's APPO config with the fields of `APPOPolicyConfig` as further options.

    Example:
        >>> config = APPOConfig().environment("CartPole-v1").training(trajectory_length=20)
        >>> config.policy_config().trajectory_length
        20
    """

    policy_config_class = APPOPolicyConfig
    aliases: ClassVar[Mapping[str, str]] = {"gamma": "discount", "grad_clip": "grad_clip_norm"}

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or APPO)
        self.timeout_s_sampler_manager = WAIT_FOR_SAMPLES_S
        self._fragment_length = 1

    def pace(self, clock: str, fragment_length: int) -> None:
        """Set the least steps of each environment per fragment; see `TrainableConfig`.

        Raises:
            ConfigError: the runners are asked to wait for the learner.
        """
        if clock == "sync" and self.num_env_runners > 0:
            raise ConfigError(
                "--runners.clock=sync: appo never waits for its runners; drop the flag, or use "
                "--policy.type=ppo"
            )
        self._fragment_length = fragment_length

    def translate(self, options: ActorCriticConfig) -> None:
        """Set RLlib's options that are spelled differently among the policy's."""
        super().translate(options)
        assert isinstance(options, APPOPolicyConfig)
        self.rollout_fragment_length = max(options.trajectory_length, self._fragment_length)

    def get_default_learner_class(self) -> type[SettlingAPPOLearner]:
        """Return the learner (RLlib's name)."""
        return SettlingAPPOLearner


class APPO(OnPolicyAlgorithm, rllib.APPO):  # type: ignore[misc]
    """Asynchronous PPO (Luo et al. 2020, IMPACT, arXiv 1912.00167), RLlib's own.

    Runners never wait for the learner, nor does a checkpoint end their episodes: it holds exact
    weights, optimiser and counters, and a resumed run begins new episodes.
    """

    @classmethod
    def get_default_config(cls) -> APPOConfig:
        """Return APPO's config (RLlib's name)."""
        return APPOConfig()

    def checkpoint_boundary(self) -> None:
        """Wait until the learner has learned from every batch it has."""
        self._on_learners(lambda learner: learner.settle())

    def save_training_state(self, folder: Path) -> dict[str, Any]:
        """Write the optimiser's state and return the counters."""
        counters = super().save_training_state(folder)
        return counters | {"target_age": self._on_learners(lambda learner: learner.target_age)}

    def load_training_state(self, folder: Path, counters: dict[str, Any]) -> None:
        """Go back to a saved state; weights come from the pretrained path of the config."""
        super().load_training_state(folder, counters)
        age = counters["target_age"]
        self._on_learners(lambda learner: setattr(learner, "target_age", age))
