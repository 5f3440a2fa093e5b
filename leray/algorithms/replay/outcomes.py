"""What each step's episode came to later: an index over a replay's finished episodes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leray.algorithms.replay.ring import ReplayBuffer

Rows = NDArray[np.int64]


class Later(NamedTuple):
    """Pairs of a step and a later observation of its episode, both as slots of shape [n]."""

    rows: Rows
    outcomes: Rows


class OutcomeIndex:
    """Finds observations that follow steps of finished episodes, without walking along the links.

    The rows of each finished episode are laid one after another on a *trail*; a step knows its
    place there and how many observations follow. The index is a function of the replay alone, and
    brings itself up to date when it is asked.
    """

    def __init__(self, replay: ReplayBuffer) -> None:
        self._replay = replay
        self._trail = np.zeros(2 * replay.num_slots, np.int64)  # episodes end out of order
        self._place = np.zeros(replay.num_slots, np.int64)
        self._left = np.zeros(replay.num_slots, np.int32)
        self._restart()

    def draw(self, size: int, rng: np.random.Generator) -> Later:
        """Draw up to `size` steps uniformly, each with one of the observations after it.

        Steps whose episode still goes on are left out, so there may be fewer.
        """
        self._refresh()
        rows = self._replay.sample_rows(size, rng).rows
        left = self._left[rows]
        ahead = 1 + (rng.random(size) * left).astype(np.int64)
        known = np.flatnonzero(left)
        rows = rows[known]
        places = (self._place[rows] + ahead[known]) % len(self._trail)
        return Later(rows, self._trail[places] % self._replay.num_slots)

    def _restart(self) -> None:
        self._generation = self._replay.generation
        self._seen = self._replay.window_start
        self._unfinished = np.zeros(0, np.int64)
        self._trail_head = 0

    def _refresh(self) -> None:
        """Take in rows that were added, and episodes that ended, since the last time."""
        replay = self._replay
        if replay.generation != self._generation:
            self._restart()
        if replay.head == self._seen:
            return
        start = replay.window_start
        added = np.arange(max(start, self._seen), replay.head)
        self._left[added % replay.num_slots] = 0
        numbers = np.concatenate([self._unfinished[self._unfinished >= start], added])
        last, follow = _chains(numbers, replay.links(numbers % replay.num_slots))
        finished = ~np.isin(numbers, replay.open_rows())[last]
        self._append(numbers[finished], last[finished], follow[finished])
        self._unfinished = numbers[~finished]
        self._seen = replay.head

    def _append(self, numbers: Rows, last: Rows, follow: Rows) -> None:
        """Lay finished episodes on the trail, each in the order it happened."""
        order = np.lexsort((-follow, last))
        places = self._trail_head + np.arange(len(order))
        self._trail[places % len(self._trail)] = numbers[order]
        slots = numbers[order] % self._replay.num_slots
        self._place[slots] = places
        self._left[slots] = follow[order]
        self._trail_head += len(order)


def _chains(numbers: Rows, links: Rows) -> tuple[Rows, Rows]:
    """Follow every row to the end of its chain, by doubling the length of the jumps.

    Args:
        numbers: rows in ascending order; a row that one of them links to is among them.
        links: their links.

    Returns:
        For each row the position in `numbers` of the last row of its chain, and how many follow.
    """
    linked = links >= 0
    jump = np.where(linked, np.searchsorted(numbers, links), np.arange(len(numbers)))
    follow = linked.astype(np.int64)
    while True:
        further = jump[jump]
        if np.array_equal(further, jump):
            return jump, follow
        follow += follow[jump]
        jump = further
