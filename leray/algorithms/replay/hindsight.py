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
        n_step: rewards summed per transition.
        discount: factor per step.
    """

    def __init__(self, task: GoalTask, *, ratio: float, n_step: int, discount: float) -> None:
        self._task = task
        self._ratio = ratio
        self._n_step = n_step
        self._discount = discount
        self._indices: dict[ReplayBuffer, OutcomeIndex] = {}

    def choose(
        self, replay: ReplayBuffer, drawn: RowSample, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Replace the first of the drawn steps by ones to tell again, and return their goals.

        Args:
            replay: where steps are drawn from.
            drawn: B transitions, changed in place.
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
        told = self._tell(replay, later.rows[chosen], goals[chosen])
        count = len(chosen)
        drawn.rows[:count], drawn.next_rows[:count] = told.rows, told.next_rows
        drawn.reward[:count], drawn.bootstrap[:count] = told.reward, told.bootstrap
        return goals[chosen]

    def relabel(self, goals: NDArray[Any], parts: dict[str, NDArray[Any]]) -> None:
        """Give the first n of B observations other goals, in place.

        Args:
            goals: what `choose` returned, shape [n, G].
            parts: the observations' parts by feature, each [B, ...].
        """
        layout = self._task.layout
        vector = parts[layout.key][: len(goals)]
        vector[:, layout.desired] = goals
        if layout.offset is not None:
            vector[:, layout.offset] = goals - vector[:, layout.achieved]

    def _tell(
        self, replay: ReplayBuffer, rows: NDArray[np.int64], goals: NDArray[Any]
    ) -> RowSample:
        """Return n-step transitions from `rows`, rewarded and ended by other goals."""
        task, places = self._task, replay.columns[self._task.layout.key]
        next_rows, reward = rows.copy(), np.zeros(len(rows), np.float32)
        bootstrap = np.ones(len(rows), np.float32)
        going = np.arange(len(rows))
        for _ in range(self._n_step):
            after = replay.links(next_rows[going]) % replay.num_slots
            next_rows[going] = after
            achieved = places[after, task.layout.achieved]
            reward[going] += bootstrap[going] * task.reward(achieved, goals[going])
            ended = task.terminated(achieved, goals[going])
            bootstrap[going] *= np.where(ended, 0.0, self._discount)
            going = going[~ended & (replay.links(after) >= 0)]
        return RowSample(rows, next_rows, reward, bootstrap)

    def _index(self, replay: ReplayBuffer) -> OutcomeIndex:
        if replay not in self._indices:
            self._indices[replay] = OutcomeIndex(replay)
        return self._indices[replay]
