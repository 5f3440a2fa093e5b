"""Hindsight experience replay: transitions told again as if a later outcome had been the goal."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.algorithms.replay.outcomes import OutcomeIndex
from leray.algorithms.replay.ring import ReplayBuffer, RowSample
from leray.envs.goals import GoalTask

CANDIDATES = 16
"""Steps looked at for each one told again: where little moves, few have an outcome worth it."""


class Hindsight:
    """Gives sampled transitions the goal that their own episode came to some steps later.

    This is the strategy `future` of Andrychowicz et al. 2017, "Hindsight Experience Replay"
    (arXiv 1707.01495, section 4.5), over finished episodes. But where reaching the goal ends an
    episode, steps that begin at the goal they would be given are passed over for others: such
    steps do not occur there, and as long as nothing moves all steps are of that kind.

    Args:
        task: rewards as a function of goals.
        ratio: share of transitions to relabel, as far as there are any; 0.8 is the paper's k = 4.
        discount: factor per step.
    """

    def __init__(self, task: GoalTask, *, ratio: float, discount: float) -> None:
        self._task = task
        self._ratio = ratio
        self._discount = discount
        self._indices: dict[ReplayBuffer, OutcomeIndex] = {}

    def choose(
        self, replay: ReplayBuffer, drawn: RowSample, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Replace the first of the drawn steps by ones to tell again, and return their goals.

        Args:
            replay: where steps are drawn from.
            drawn: B one-step transitions; `rows` and `next_rows` are changed in place.
            rng: source of randomness.

        Returns:
            Goals of the first n transitions, shape [n, G], n <= ratio * B.
        """
        count = round(len(drawn.rows) * self._ratio)
        later = self._index(replay).draw(CANDIDATES * count, rng)
        key, achieved = self._task.layout.key, self._task.layout.achieved
        before = replay.columns[key][later.rows, achieved]
        goals = replay.columns[key][later.outcomes, achieved]
        chosen = np.flatnonzero(~self._task.terminated(before, goals))[:count]
        rows = later.rows[chosen]
        drawn.rows[: len(chosen)] = rows
        drawn.next_rows[: len(chosen)] = replay.following(rows)
        return goals[chosen]

    def relabel(
        self,
        goals: NDArray[Any],
        *,
        observation: dict[str, NDArray[Any]],
        next_observation: dict[str, NDArray[Any]],
        reward: NDArray[np.float32],
        bootstrap: NDArray[np.float32],
    ) -> None:
        """Change goals, rewards and ends of the first n of B transitions, in place.

        Args:
            goals: what `choose` returned, shape [n, G].
            observation: the observation's parts by feature, each [B, ...].
            next_observation: those of the observation after the step.
            reward: rewards [B].
            bootstrap: the discount where the step did not end the episode for good, else 0; [B].
        """
        layout, count = self._task.layout, len(goals)
        for parts in (observation, next_observation):
            vector = parts[layout.key][:count]
            vector[:, layout.desired] = goals
            if layout.offset is not None:
                vector[:, layout.offset] = goals - vector[:, layout.achieved]
        achieved = next_observation[layout.key][:count, layout.achieved]
        reward[:count] = self._task.reward(achieved, goals)
        ended = self._task.terminated(achieved, goals)
        bootstrap[:count] = np.where(ended, 0.0, self._discount)

    def _index(self, replay: ReplayBuffer) -> OutcomeIndex:
        if replay not in self._indices:
            self._indices[replay] = OutcomeIndex(replay)
        return self._indices[replay]
