"""What LeRay adds to RLlib's configs of PPO and APPO."""

from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import ENV_CREATOR, _global_registry, register_env

from leray.algorithms.onpolicy.options import ActorCriticConfig
from leray.algorithms.onpolicy.runner import (
    ENV_NAME,
    SeededEnvRunner,
    make_flat_env,
    record_episode,
)
from leray.algorithms.rllib_options import OptionsConfig
from leray.algorithms.trainable import DataSource
from leray.envs.config import EnvConfig, GymEnvConfig
from leray.envs.flat import FlatEnv
from leray.errors import ConfigError


class OnPolicyConfig(OptionsConfig):
    """Goes before RLlib's own config among the bases of a class.

    Beside the policy's options, `env_options` says which environment to learn in; a Gymnasium id
    given to `environment` means the same.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.env_options: EnvConfig | None = None
        self.env_runner_cls = SeededEnvRunner
        self.num_env_runners = 0
        self.num_learners = 0
        self.sample_timeout_s = None  # a slow environment is waited for
        self.min_time_s_per_iteration = None
        self.min_sample_timesteps_per_iteration = 0
        self.train_batch_size_per_learner = self.policy_config_class.default_batch_size
        self.callbacks(on_episode_end=record_episode)

    def prepare(self, options: dict[str, Any], batch_size: int) -> None:
        """Set the policy's options and the batch size; see `TrainableConfig`."""
        self.training(**options)
        self.train_batch_size_per_learner = batch_size

    def place(self, *, online: bool, dataset: DataSource | None, **_: Any) -> None:
        """Refuse what is not fresh experience; see `TrainableConfig`."""
        name = self.policy_config().type
        if not online:
            raise ConfigError(
                f"--use_online_training=false: {name} learns online only; give --env.type=... "
                "--env.task=..., or another --policy.type"
            )
        if dataset is not None:
            raise ConfigError(
                f"--dataset: {name} learns from its own experience only and cannot use "
                f"{dataset.root}; drop --dataset.*, or use another --policy.type, such as sac"
            )

    def validate(self) -> None:
        """Translate the policy's options into RLlib's, and check them (RLlib's name)."""
        options = self.policy_config()
        assert isinstance(options, ActorCriticConfig)
        if self.num_learners > 1:
            raise ConfigError(
                f"--learners.num_learners={self.num_learners}: {options.type} learns in one "
                "process; give 0 (the training process) or 1 (one of its own)"
            )
        self.translate(options)
        self._find_env()
        super().validate()

    def add_env_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        """Give the environment further keyword arguments."""
        super().add_env_kwargs(kwargs)
        self.environment(ENV_NAME, env_config={"env": self.env_options})

    def translate(self, options: ActorCriticConfig) -> None:
        """Set RLlib's options that are spelled differently among the policy's."""
        self.gamma = options.discount
        self.grad_clip = options.grad_clip_norm
        self.grad_clip_by = "global_norm"
        self.use_kl_loss = options.kl_coeff > 0
        self.rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(options.hidden_dims),
                fcnet_activation=options.activation,
                vf_share_layers=False,
            )
        )

    def _find_env(self) -> None:
        """Let RLlib build the environment through LeRay, as a flat one."""
        if self.env_options is None:
            if not isinstance(self.env, str) or _global_registry.contains(ENV_CREATOR, self.env):
                raise ConfigError(
                    f"environment {self.env!r}: give a Gymnasium id, or set env_options to LeRay's "
                    "config of an environment"
                )
            self.env_options = GymEnvConfig(task=self.env, kwargs=dict(self.env_config))
        if not self.in_evaluation:
            FlatEnv(self.env_options).close()  # what is wrong with it is said here, not in an actor
        register_env(ENV_NAME, make_flat_env)
        self.environment(ENV_NAME, env_config={"env": self.env_options})
