"""Acting in N environments and writing what happens into fragments; no Ray in here."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.names import ACTION, DONE, REWARD, TRUNCATED
from leray.envs.fragment import Columns, Fragment
from leray.envs.observation import Observation
from leray.envs.vector import Ended, VectorEnv
from leray.errors import EnvError

Act = Callable[[Observation], NDArray[Any]]
"""From observations of shape [N, ...] by name to actions in the environment's units, [N, A]."""


class Collector:
    """Collects fragments from a vector of environments.

    Args:
        envs: environments to act in.
        first_stream: identity of the first environment's stream; each next one adds one, and a
            stream that a crash cuts goes on under a new identity.
        runner: index written on every fragment.
    """

    def __init__(self, envs: VectorEnv, *, first_stream: int, runner: int) -> None:
        self.envs = envs
        self._streams = np.arange(first_stream, first_stream + envs.num_envs, dtype=np.int64)
        self._next_stream = first_stream + envs.num_envs
        self._runner = runner

    def collect(self, num_steps: int, act: Act, *, policy_version: int = 0) -> Fragment:
        """Take `num_steps` steps in every environment.

        Args:
            num_steps: T.
            act: chooses actions.
            policy_version: version of the weights behind `act`.

        Raises:
            EnvError: an environment returned something that is not a number or of a wrong shape.
        """
        envs = self.envs
        columns = self._allocate(num_steps)
        final: dict[tuple[int, int], Observation] = {}
        statistics = []
        for step in range(num_steps):
            for key, value in envs.observations.items():
                columns[key][step] = value
            actions = act(envs.observations)
            columns[ACTION][step] = actions
            ended, crashed = envs.step(
                actions, columns[REWARD][step], columns[DONE][step], columns[TRUNCATED][step]
            )
            for env, first in crashed.items():
                self._cut(columns, final, step, env, first)
            for end in ended:
                final[step, end.env] = end.final
                statistics.append(_record(end))
        fragment = Fragment(
            columns=columns,
            tail={key: value.copy() for key, value in envs.observations.items()},
            final=self._stack(final),
            streams=self._streams.copy(),
            policy_version=policy_version,
            runner=self._runner,
            statistics=statistics,
        )
        self._check_finite(fragment)
        return fragment

    def restart(self, seeds: list[int]) -> None:
        """Begin a new episode everywhere, under new stream identities."""
        self.envs.reset(seeds)
        for env in range(self.envs.num_envs):
            self._renew_stream(env)

    def _allocate(self, num_steps: int) -> Columns:
        leading = (num_steps, self.envs.num_envs)
        columns: Columns = {
            key: np.empty((*leading, *feature.shape), feature.dtype)
            for key, feature in self.envs.features.items()
        }
        columns[REWARD] = np.empty(leading, np.float32)
        columns[DONE] = np.empty(leading, np.bool_)
        columns[TRUNCATED] = np.empty(leading, np.bool_)
        return columns

    def _cut(
        self,
        columns: Columns,
        final: dict[tuple[int, int], Observation],
        step: int,
        env: int,
        first: Observation,
    ) -> None:
        """End a crashed environment's stream before a step, and begin the next one with it."""
        if step == 0:
            self._renew_stream(env)
        elif (step - 1, env) not in final:
            columns[TRUNCATED][step - 1, env] = True
            final[step - 1, env] = {key: columns[key][step, env].copy() for key in first}
        for key, value in first.items():
            columns[key][step, env] = value

    def _renew_stream(self, env: int) -> None:
        self._streams[env] = self._next_stream
        self._next_stream += 1

    def _stack(self, final: dict[tuple[int, int], Observation]) -> Columns:
        ordered = [final[position] for position in sorted(final)]
        return {
            key: np.stack([observation[key] for observation in ordered])
            if ordered
            else np.empty((0, *value.shape[1:]), value.dtype)
            for key, value in self.envs.observations.items()
        }

    def _check_finite(self, fragment: Fragment) -> None:
        """Refuse NaN and infinity, saying who returned them and under which name."""
        steps, envs = fragment.shape
        everyone = np.arange(envs)
        groups = (
            (fragment.columns, np.tile(everyone, (steps, 1))),
            (fragment.final, np.nonzero(fragment.ended)[1]),
            (fragment.tail, everyone),
        )
        for columns, owners in groups:
            for key, value in columns.items():
                if value.dtype.kind != "f" or np.isfinite(value).all():
                    continue
                position = tuple(np.argwhere(~np.isfinite(value))[0])
                env = int(owners[position[: owners.ndim]])
                element = [int(index) for index in position[owners.ndim :]]
                self._refuse(key, element, float(value[position]), env)

    def _refuse(self, key: str, element: list[int], value: float, env: int) -> None:
        where = f"{key}{element or ''}"
        if key == ACTION:
            raise EnvError(
                f"the policy chose {value} in {where} for environment {self.envs.name} ({env}) "
                "where a finite number is expected: lower the learning rates or clip gradients"
            )
        raise EnvError(
            f"environment {self.envs.name} ({env}) returned {value} in {where} where a finite "
            "number is expected: fix the environment or the action's range"
        )


def _record(end: Ended) -> dict[str, Any]:
    return {"return": end.episode_return, "length": float(end.length), "success": end.success}
