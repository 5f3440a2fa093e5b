"""RLlib's EnvRunner over a `Collector`: N simulations in this process, or in a Ray actor."""

import logging
import secrets
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    WEIGHTS_SEQ_NO,
)

from leray.data.features import Features
from leray.envs.collector import Act, Collector
from leray.envs.fragment import Fragment
from leray.envs.spaces import from_spaces, to_spaces
from leray.envs.vector import VectorEnv
from leray.errors import LerayError


class CollectingEnvRunner(EnvRunner, Checkpointable):  # type: ignore[misc]
    """Collects columnar fragments with the policy inside an RLModule.

    The module must have an attribute `policy` that follows `leray.algorithms.policy.Policy`.
    Without an environment in the config (offline training) only the spaces are served.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.worker_index: int = kwargs.get("worker_index") or 0
        self._env_creator = kwargs.get("env_creator")
        self._given_spaces = kwargs.get("spaces")
        self._collector: Collector | None = None
        self._num_envs: int = self.config.num_envs_per_env_runner
        self._version = 0
        self._steps_lifetime = 0
        self._sequence = 0
        self._unreported_steps = 0
        self._unreported_episodes: list[dict[str, Any]] = []
        self.module: Any = None
        if self.worker_index > 0:
            torch.set_num_threads(1)  # small batches; other threads would only take cores
            # RLlib warns of its own use of RLModule
            logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)
        self.make_env()
        self.make_module()
        self.restart(0)

    def make_env(self) -> None:
        """Build the environments (RLlib's name)."""
        remote_only = self.worker_index == 0 and self.config.num_env_runners > 0
        if self.config.env is None or (
            remote_only and not self.config.create_env_on_local_worker and self._given_spaces
        ):
            return
        if remote_only:
            self._num_envs = 1  # only to learn the spaces
        envs = VectorEnv(
            self._make_one,
            self._num_envs,
            goal_relative=self.config.goal_relative,
            seeds=self._seeds(0),
        )
        self._action_space = envs.envs[0].action_space
        # a restarted actor must not continue the streams of the one it replaces
        first = 0 if self.worker_index == 0 else secrets.randbits(62)
        self._collector = Collector(envs, first_stream=first, runner=self.worker_index)
        self.env = envs

    def make_module(self) -> None:
        """Build the policy (RLlib's name)."""
        spec = self.config.get_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        self.module.policy.seed(self._seeds(0)[0])

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
        **_: Any,
    ) -> list[Fragment]:
        """Collect experience: fragments of one step until enough episodes ended, else one fragment.

        Args:
            num_timesteps: steps over all environments, rounded down to a multiple of their number;
                None takes the config's fragment length for each.
            num_episodes: episodes that have to end.
            explore: sample actions instead of taking the most likely; None asks the config.
            random_actions: draw actions uniformly instead of asking the policy.
            force_reset: begin with new episodes.
        """
        collector = self._ready()
        if force_reset:
            collector.restart(self._seeds(self._steps_lifetime))
        explore = self.config.explore if explore is None else explore
        act = self._random if random_actions else self._policy_act(explore=bool(explore))
        width = collector.envs.num_envs
        fragments: list[Fragment] = []
        if num_episodes is None:
            steps = num_timesteps or self.config.get_rollout_fragment_length() * width
            fragments.append(self._collect(max(1, steps // width), act))
        else:
            while sum(len(fragment.statistics) for fragment in fragments) < num_episodes:
                fragments.append(self._collect(1, act))
        return fragments

    def try_sample(
        self, *, version: int | None = None, block: torch.Tensor | None = None, **kwargs: Any
    ) -> list[Fragment] | str:
        """Take over weights, then return what `sample` does, or an error the user has to mend.

        The error comes as its message, since RLlib ends an actor whose method raises and starts
        another one, which would meet the same.
        """
        if version is not None and block is not None:
            self.set_weights(version, block)
        try:
            return self.sample(**kwargs)
        except LerayError as error:
            return str(error)

    def restart(self, step: int) -> None:
        """Begin new episodes and random numbers that depend on the seed and `step` alone."""
        if self._collector is not None:
            seeds = self._seeds(step)
            self._collector.restart(seeds)
            self.module.policy.seed(seeds[0])
            self._action_space.seed(seeds[0])

    def set_weights(self, version: int, block: torch.Tensor) -> None:
        """Take over the acting parameters, one flat block."""
        self.module.policy.load_acting_block(block)
        self._version = version

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """Return observation and action spaces (RLlib's name)."""
        if self._collector is not None:
            spaces = to_spaces(self._collector.envs.features)
        elif self._given_spaces:
            return dict(self._given_spaces)
        else:
            spaces = (self.config.observation_space, self.config.action_space)
        return {
            INPUT_ENV_SPACES: spaces,
            INPUT_ENV_SINGLE_SPACES: spaces,
            DEFAULT_MODULE_ID: spaces,
        }

    @property
    def features(self) -> Features:
        """Observations and action of the environments."""
        return from_spaces(*self.get_spaces()[DEFAULT_MODULE_ID])

    def get_metrics(self) -> dict[str, Any]:
        """Return and reset RLlib's statistics of what was sampled."""
        log = self.metrics.log_value
        steps, episodes = self._unreported_steps, self._unreported_episodes
        log(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum")
        log(NUM_EPISODES, len(episodes), reduce="sum")
        for record in episodes:
            log(EPISODE_RETURN_MEAN, record["return"], reduce="mean", window=100)
            log(EPISODE_LEN_MEAN, record["length"], reduce="mean", window=100)
        self._unreported_steps, self._unreported_episodes = 0, []
        return dict(self.metrics.reduce())

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the module's state and counters (RLlib's form)."""
        state: dict[str, Any] = {
            WEIGHTS_SEQ_NO: self._version,
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self._steps_lifetime,
        }
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state; weights are always applied, also older ones."""
        weights = state.get(COMPONENT_RL_MODULE)
        if isinstance(weights, ray.ObjectRef):
            weights = ray.get(weights, timeout=60)
        if weights is not None:
            self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
        self._version = state.get(WEIGHTS_SEQ_NO, self._version)
        self._steps_lifetime = state.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._steps_lifetime)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, Any]]:
        """Return how to build this runner again (RLlib's form)."""
        return (), {
            "config": self.config,
            "worker_index": self.worker_index,
            "env_creator": self._env_creator,
            "spaces": self._given_spaces,
        }

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that RLlib saves by themselves."""
        return [(COMPONENT_RL_MODULE, self.module)]

    def assert_healthy(self) -> None:
        """Raise unless the policy was built."""
        assert self.module is not None

    def stop(self) -> None:
        """Close the environments."""
        if self._collector is not None:
            self._collector.envs.close()

    def _ready(self) -> Collector:
        if self._collector is None:
            raise LerayError("this runner has no environment: give one with .environment(...)")
        return self._collector

    def _collect(self, num_steps: int, act: Act) -> Fragment:
        fragment = self._ready().collect(num_steps, act, policy_version=self._version)
        fragment.sequence = self._sequence
        self._sequence += 1
        steps = fragment.env_steps()
        self._steps_lifetime += steps
        self._unreported_steps += steps
        self._unreported_episodes += fragment.statistics
        return fragment

    def _policy_act(self, *, explore: bool) -> Act:
        policy, envs = self.module.policy, self._ready().envs

        def act(observations: Mapping[str, Any]) -> Any:
            if begun := envs.beginning:
                policy.reset(begun)
            return policy.act(observations, deterministic=not explore)

        return act

    def _random(self, observations: Mapping[str, Any]) -> Any:
        return np.stack([self._action_space.sample() for _ in range(self._ready().envs.num_envs)])

    def _seeds(self, step: int) -> list[int]:
        """Return one seed per environment, a pure function of seed, runner and step."""
        origin = (self.config.seed or 0) % 2**32
        key = (origin, self.worker_index, step, int(self.config.in_evaluation or 0))
        words = np.random.SeedSequence(key).generate_state(self._num_envs)
        return [int(word) % 2**31 for word in words]

    def _make_one(self) -> gym.Env[Any, Any]:
        context = EnvContext(
            self.config.env_config, worker_index=self.worker_index, num_workers=self.num_workers
        )
        return self.config.make_single_env(self._env_creator, context)
