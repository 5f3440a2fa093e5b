"""N environments stepped together in one process, straight into the caller's arrays."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.data.features import Features
from leray.data.names import ACTION
from leray.envs.observation import Observation, ObservationMap, action_feature
from leray.errors import EnvError

logger = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 3
"""How often an environment is rebuilt without a successful step before the run gives up."""
CRASH_SEED_STRIDE = 1_000_003
"""What each crash adds to an environment's seed, so that it does not meet the same crash again."""


class Ended(NamedTuple):
    """An episode that ended in a step."""

    env: int
    final: Observation
    episode_return: float
    length: int
    success: float | None
    """1 or 0; None where the environment does not report it."""


class VectorEnv:
    """Steps N environments, resets those that end, and replaces those that crash.

    Args:
        make: builds one environment.
        num_envs: how many, N.
        goal_relative: whether goal tasks get goal-relative features.
        seeds: seed of each environment's first episode; later episodes continue its generator.

    Raises:
        EnvError: an environment cannot be built, or its spaces are of an unsupported kind.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env[Any, Any]],
        num_envs: int,
        *,
        goal_relative: bool,
        seeds: Sequence[int],
    ) -> None:
        self._make = make
        self.envs = [make() for _ in range(num_envs)]
        self.num_envs = num_envs
        self._map = ObservationMap(self.envs[0], goal_relative=goal_relative)
        self.features = Features({**self._map.features, ACTION: action_feature(self.envs[0])})
        self.observation_features = self._map.features
        self.observations: Observation = {
            key: np.zeros((num_envs, *feature.shape), feature.dtype)
            for key, feature in self._map.features.items()
        }
        """Current observation of each environment, shape [N, ...]; overwritten by `step`."""
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._success = np.full(num_envs, np.nan)
        self._seeds = list(seeds)
        self._crashes = 0
        self.reset(seeds)

    def reset(self, seeds: Sequence[int]) -> None:
        """Start a new episode everywhere, each environment with its own seed."""
        self._seeds = list(seeds)
        for index, seed in enumerate(seeds):
            self._begin(index, seed)

    def step(
        self,
        actions: NDArray[Any],
        reward: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> tuple[list[Ended], dict[int, Observation]]:
        """Step every environment once.

        One that crashes is rebuilt, begins a new episode, and takes the step in that.

        Args:
            actions: in the environment's own units, shape [N, A].
            reward: written, shape [N].
            terminated: written, shape [N].
            truncated: written, shape [N].

        Returns:
            The episodes that ended, and for each environment that crashed the first observation of
            its new episode, from which this step was taken: the stream is cut before it.

        Raises:
            EnvError: an observation or reward is not what the spaces promise, or an environment
                crashes again and again.
        """
        ended: list[Ended] = []
        crashed: dict[int, Observation] = {}
        for index in range(self.num_envs):
            try:
                outcome = self.envs[index].step(actions[index])
            except Exception as error:  # whatever a simulator raises, it is replaced
                outcome = self._retry(index, actions[index], error, crashed)
            observation, value, done, cut, info = outcome
            terminated[index], truncated[index] = done, cut
            reward[index] = gained = self._number(value)
            self._returns[index] += gained
            self._lengths[index] += 1
            if "is_success" in info:
                self._success[index] = np.fmax(self._success[index], float(info["is_success"]))
            self._store(index, observation)
            if done or cut:
                ended.append(self._end(index))
        return ended, crashed

    @property
    def beginning(self) -> list[int]:
        """The environments whose episode has had no step yet."""
        numbers: list[int] = np.flatnonzero(self._lengths == 0).tolist()
        return numbers

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _begin(self, index: int, seed: int | None) -> None:
        """Begin an episode, in a new environment if this one cannot be reset."""
        try:
            observation, _ = self.envs[index].reset(seed=seed)
        except Exception as error:  # whatever a simulator raises, it is replaced
            self._replace(index, error)
            return
        self._start(index, observation)

    def _start(self, index: int, first: Any) -> None:
        self._store(index, first)
        self._returns[index], self._lengths[index], self._success[index] = 0.0, 0, np.nan

    def _end(self, index: int) -> Ended:
        final = {key: value[index].copy() for key, value in self.observations.items()}
        ended = Ended(
            index,
            final,
            float(self._returns[index]),
            int(self._lengths[index]),
            None if np.isnan(self._success[index]) else float(self._success[index]),
        )
        self._begin(index, None)
        return ended

    def _store(self, index: int, observation: Any) -> None:
        """Take over an observation; refuse one that the observation space does not allow."""
        try:
            named = self._map(observation)
        except Exception as error:
            raise EnvError(
                f"environment {self.name} returned an observation that its observation space does "
                f"not allow ({type(error).__name__}: {error}): fix the environment"
            ) from error
        if named.keys() != self.observations.keys():
            raise EnvError(
                f"environment {self.name} returned {', '.join(named) or 'nothing'} where its "
                f"observation space says {', '.join(self.observations)}: fix the environment"
            )
        for key, value in named.items():
            target = self.observations[key][index]
            scalar = target.shape == (1,) and value.shape == ()
            if value.shape != target.shape and not scalar:
                raise EnvError(
                    f"environment {self.name} returned {key} of shape {list(value.shape)} where "
                    f"its observation space says {list(target.shape)}: fix the environment"
                )
            if not np.can_cast(value.dtype, target.dtype, "same_kind"):
                raise EnvError(
                    f"environment {self.name} returned {key} of dtype {value.dtype} where its "
                    f"observation space says {target.dtype}: fix the environment"
                )
            target[...] = value

    def _number(self, reward: Any) -> float:
        try:
            return float(reward)
        except (TypeError, ValueError) as error:
            raise EnvError(
                f"environment {self.name} returned {reward!r} as next.reward where a number is "
                "expected: fix the environment"
            ) from error

    def _retry(
        self, index: int, action: NDArray[Any], error: Exception, crashed: dict[int, Observation]
    ) -> Any:
        """Replace a crashed environment and take the step in a new episode."""
        for _ in range(MAX_FAILURES_IN_A_ROW):
            self._replace(index, error)
            crashed[index] = {key: value[index].copy() for key, value in self.observations.items()}
            try:
                return self.envs[index].step(action)
            except Exception as again:  # counted by the loop
                error = again
        raise self._hopeless(error)

    def _replace(self, index: int, error: Exception) -> None:
        """Build an environment anew and begin an episode in it."""
        for _ in range(MAX_FAILURES_IN_A_ROW):
            self._crashes += 1
            logger.warning(
                "environment %s (%d) crashed with %s: %s; it is replaced",
                self.name,
                index,
                type(error).__name__,
                error,
            )
            with contextlib.suppress(Exception):  # it is broken already
                self.envs[index].close()
            self.envs[index] = self._make()
            try:
                seed = self._seeds[index] + CRASH_SEED_STRIDE * self._crashes
                observation, _ = self.envs[index].reset(seed=seed % 2**31)
            except Exception as again:  # counted by the loop
                error = again
                continue
            self._start(index, observation)
            return
        raise self._hopeless(error)

    def _hopeless(self, error: Exception) -> EnvError:
        reason = f"{type(error).__name__}: {error}"
        failure = EnvError(
            f"environment {self.name} crashed in {MAX_FAILURES_IN_A_ROW} new episodes in a row "
            f"({reason}): fix the environment"
        )
        failure.__cause__ = error
        return failure

    @property
    def name(self) -> str:
        """Name of the environment, for messages."""
        spec = self.envs[0].spec
        return spec.id if spec is not None else type(self.envs[0].unwrapped).__name__
