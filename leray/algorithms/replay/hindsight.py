"""Hindsight experience replay: transitions told again as if a later outcome had been the goal."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.algorithms.replay.ring import ReplayBuffer
from leray.envs.goals import GoalTask


class Hindsight:
    """Gives sampled transitions the goal that their own episode came to some steps later.

    This is the strategy `future` of Andrychowicz et al. 2017, "Hindsight Experience Replay"
    (arXiv 1707.01495, section 4.5), but for how many steps later: that is drawn from a geometric
    distribution, so that no transition need know how long its episode will be. Where the episode
    ends first, its last observation is the goal.

    Args:
        task: rewards as a function of goals.
        ratio: share of transitions to relabel; 0.8 is the paper's k = 4.
        horizon: how many steps later on average, >= 1.
        discount: factor per step.
    """

    def __init__(self, task: GoalTask, *, ratio: float, horizon: float, discount: float) -> None:
        self._task = task
        self._ratio = ratio
        self._horizon = horizon
        self._discount = discount

    def relabel(
        self,
        replay: ReplayBuffer,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        *,
        observation: dict[str, NDArray[Any]],
        next_observation: dict[str, NDArray[Any]],
        reward: NDArray[np.float32],
        bootstrap: NDArray[np.float32],
    ) -> None:
        """Change goals, rewards and ends of the first of B one-step transitions, in place.

        Args:
            replay: where the transitions were drawn from.
            rows: slots of the transitions [B].
            rng: source of randomness.
            observation: the observation's parts by feature, each [B, ...].
            next_observation: those of the observation after the step.
            reward: rewards [B].
            bootstrap: the discount where the step did not end the episode for good, else 0; [B].
        """
        count = round(len(rows) * self._ratio)
        if not count:
            return
        layout, achieved = self._task.layout, self._task.layout.achieved
        hops = rng.geometric(1.0 / self._horizon, count)
        outcome = replay.rows_after(rows[:count], hops)
        goal = replay.columns[layout.key][outcome, achieved]
        # an episode that has reached its goal has ended: no step begins there
        told = np.flatnonzero(~self._task.terminated(observation[layout.key][:count, achieved], goal))
        goal = goal[told]
        for parts in (observation, next_observation):
            vector = parts[layout.key]
            vector[told, layout.desired] = goal
            if layout.offset is not None:
                vector[told, layout.offset] = goal - vector[told, achieved]
        reached = next_observation[layout.key][told, achieved]
        reward[told] = self._task.reward(reached, goal)
        ended = self._task.terminated(reached, goal)
        bootstrap[told] = np.where(ended, 0.0, self._discount)
