"""The block of experience that an env runner hands over: columns, not objects."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.names import DONE, INTERVENTION, TRUNCATED

Columns = dict[str, NDArray[Any]]
ANONYMOUS = -1
"""Identity of a stream that no other fragment continues."""


@dataclass(kw_only=True, slots=True)
class Fragment:
    """T steps of N environments, as one array per LeRobot feature name.

    The observation after a step is not stored twice: it is the next row's observation, or a row of
    `final` where the step ended its episode, or a row of `tail` after the last step.
    """

    columns: Columns
    """`observation.*`, `action`, `next.reward` [float32], `next.done` (terminated) [bool],
    `next.truncated` [bool], and any `complementary_info.*`; each of shape [T, N, ...]."""
    tail: Columns
    """Observations after the last step, shape [N, ...]; where an episode just ended, the next's."""
    final: Columns
    """True last observations of the episodes that ended, in (t, n) order, shape [K, ...]."""
    streams: NDArray[np.int64]
    """Identity of each environment's stream, shape [N]. A stream's first observation in a fragment
    is its tail in the one before."""
    continues: bool = True
    """Whether each stream goes on from its last fragment; False after one in between was lost."""
    policy_version: int = 0
    """Version of the weights that chose the actions."""
    runner: int = 0
    """Index of the env runner the block comes from."""
    sequence: int = 0
    """Number of the block among those of its runner, counted from 0."""
    statistics: list[dict[str, Any]] = field(default_factory=list)
    """One record per episode that ended: return, length, success (None if not reported)."""

    @property
    def shape(self) -> tuple[int, int]:
        """Steps T and environments N."""
        steps, envs = self.columns[DONE].shape[:2]
        return int(steps), int(envs)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Where an episode ended, by termination or truncation; shape [T, N]."""
        return np.asarray(self.columns[DONE] | self.columns[TRUNCATED], dtype=np.bool_)

    def env_steps(self) -> int:
        """Return the number of environment steps (RLlib's name)."""
        steps, envs = self.shape
        return steps * envs

    def agent_steps(self) -> int:
        """Return the number of agent steps, one per environment step (RLlib's name)."""
        return self.env_steps()

    def interventions(self) -> Iterator["Fragment"]:
        """Yield each uninterrupted run of human intervention as a fragment of its own."""
        flags = self.columns.get(INTERVENTION)
        if flags is None or not flags.any():
            return
        ended = self.ended
        for env in range(self.shape[1]):
            start = None
            for step in range(self.shape[0]):
                if flags[step, env] and start is None:
                    start = step
                last = step == self.shape[0] - 1 or not flags[step + 1, env] or ended[step, env]
                if start is not None and last:
                    yield self._cut(env, start, step + 1)
                    start = None

    def _cut(self, env: int, start: int, stop: int) -> "Fragment":
        """Return steps start..stop of one environment as a stream that ends there."""
        columns = {key: value[start:stop, env : env + 1] for key, value in self.columns.items()}
        ended = self.ended
        final: Columns = {key: value[:0] for key, value in self.final.items()}
        if ended[stop - 1, env]:
            number = int(ended.reshape(-1)[: (stop - 1) * self.shape[1] + env].sum())
            final = {key: value[number : number + 1] for key, value in self.final.items()}
            tail = {key: value[env : env + 1] for key, value in self.tail.items()}
        elif stop == self.shape[0]:
            tail = {key: value[env : env + 1] for key, value in self.tail.items()}
        else:
            tail = {key: self.columns[key][stop, env : env + 1] for key in self.tail}
        return Fragment(
            columns=columns,
            tail=tail,
            final=final,
            streams=np.full(1, ANONYMOUS, np.int64),
            policy_version=self.policy_version,
            runner=self.runner,
        )
