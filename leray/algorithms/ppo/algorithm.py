"""PPO as `leray train` drives it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ray.rllib.algorithms import ppo as rllib

from leray.algorithms.onpolicy.algorithm import OnPolicyAlgorithm
from leray.algorithms.onpolicy.config import OnPolicyConfig
from leray.algorithms.onpolicy.options import ActorCriticConfig
from leray.algorithms.ppo.config import PPOPolicyConfig
from leray.errors import ConfigError


class PPOConfig(OnPolicyConfig, rllib.PPOConfig):  # type: ignore[misc]
    """RLlib's PPO config with the fields of `PPOPolicyConfig` as further options.

    Example:
        >>> config = PPOConfig().environment("CartPole-v1").training(gae_lambda=0.9)
        >>> config.policy_config().gae_lambda
        0.9
    """

    policy_config_class = PPOPolicyConfig
    aliases: ClassVar[Mapping[str, str]] = {
        "gamma": "discount",
        "lambda_": "gae_lambda",
        "grad_clip": "grad_clip_norm",
    }

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPO)

    def pace(self, clock: str, fragment_length: int) -> None:
        """Do nothing: runners collect one batch together, and the learner waits for all of them."""

    def translate(self, options: ActorCriticConfig) -> None:
        """Set RLlib's options that are spelled differently among the policy's.

        Raises:
            ConfigError: a minibatch is larger than the batch.
        """
        super().translate(options)
        assert isinstance(options, PPOPolicyConfig)
        batch_size = self.train_batch_size_per_learner
        if options.minibatch_size > batch_size:
            raise ConfigError(
                f"--policy.minibatch_size={options.minibatch_size}: give at most "
                f"--batch_size={batch_size}, the steps of one iteration"
            )
        self.lambda_ = options.gae_lambda


class PPO(OnPolicyAlgorithm, rllib.PPO):  # type: ignore[misc]
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), RLlib's own."""

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        """Return PPO's config (RLlib's name)."""
        return PPOConfig()
