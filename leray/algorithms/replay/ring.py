"""The replay buffer: a ring of linked rows, sampled uniformly.

A row holds one observation and, once it is known, what happened next: action, reward, flags and a
link to the row with the following observation. Rows are numbered from 0 without end; row r lies in
slot r modulo the number of slots. Three kinds of rows exist, told apart by their link:

* link >= 0: a step, which can be sampled; its link is always a later row;
* link == OPEN: the newest observation of a stream, turned into a step by the stream's next one;
* link == FINAL: the last observation of an episode.

So every observation is stored once, whatever mix of environments writes, and a chain of links
never crosses an episode. The counters are committed last: after a crash, links to rows that were
not committed are undone, and everything committed is there but for the oldest rows whose slots the
lost fragment had begun to take.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leray.algorithms.replay.storage import ColumnStorage
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment
from leray.errors import CheckpointError

OPEN, FINAL = -1, -2
EMPTY = {"start": 0, "head": 0, "steps": 0, "total": 0, "open": []}
"""State of a replay that nothing was added to; see `ReplayBuffer.rewind`."""
_STEP_FEATURES = {
    REWARD: Feature("float32", (1,)),
    DONE: Feature("bool", (1,)),
    TRUNCATED: Feature("bool", (1,)),
    INTERVENTION: Feature("bool", (1,)),
    "policy_version": Feature("int32", (1,)),
    "runner": Feature("int32", (1,)),
}


class RowSample(NamedTuple):
    """Where n-step transitions lie; all of shape [B]."""

    rows: NDArray[np.int64]
    """Slots of the first step."""
    next_rows: NDArray[np.int64]
    """Slots of the observation after the last step."""
    reward: NDArray[np.float32]
    """Discounted sum of rewards."""
    bootstrap: NDArray[np.float32]
    """discount^n where the last step did not terminate, else 0."""


class ReplayBuffer:
    """A ring buffer of transitions from any number of streams.

    Args:
        features: the observations and the action to store, without a time axis.
        capacity: rows that sampling draws from: one per step and one per episode end.
        folder: where to keep the buffer memory-mapped; None keeps it in memory.
        slack: further rows kept behind the sampled window, so that `rewind` can go back by them.
    """

    def __init__(
        self, features: Features, capacity: int, *, folder: Path | None = None, slack: int = 0
    ) -> None:
        self.features = features
        self.capacity = capacity
        self.observation_keys = [key for key in features if key.startswith("observation")]
        rows = Features({**features, **_STEP_FEATURES})
        self._storage = ColumnStorage(rows, capacity + slack, folder)
        self._slots = self._storage.num_rows
        if capacity > self._slots:
            raise CheckpointError(
                f"{folder} was made for {self._slots} rows and {capacity} are asked for: keep "
                "--policy.online_buffer_capacity of the run, or give another --output_dir"
            )
        self._open: dict[int, int] = {}
        """Newest row of each stream that may be continued."""
        self.generation = 0
        """Counts how often rows were taken back or replaced."""
        self._head, self._steps, self._total = self._storage.counters()
        self._discard_uncommitted()

    def __len__(self) -> int:
        """Return the number of steps that can be sampled."""
        return self._steps

    @property
    def head(self) -> int:
        """Number of rows ever written."""
        return self._head

    @property
    def total_steps(self) -> int:
        """Number of steps ever added."""
        return self._total

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The stored columns by feature name, shape [slots, ...]; read only what `rows` name."""
        return self._storage.columns

    @property
    def window_start(self) -> int:
        """Number of the oldest row that sampling draws from."""
        return max(self._storage.oldest, self._head - self.capacity)

    @property
    def num_slots(self) -> int:
        """Number of slots: the capacity and the slack."""
        return self._slots

    def links(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the links of the rows in given slots, shape [n]; see the module's description."""
        return self._storage.next[slots]

    def open_rows(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that may still be continued."""
        return np.fromiter(self._open.values(), np.int64, len(self._open))

    def add(self, fragment: Fragment) -> None:
        """Append a fragment; it is committed as a whole when this returns.

        Args:
            fragment: steps of one or more streams, whose observations and actions have the shapes
                and dtypes of `features`.

        Raises:
            ValueError: the fragment has more rows than the replay.
        """
        steps, envs = fragment.shape
        ended = fragment.ended
        most_new = (steps + 1) * envs + int(ended.sum())
        if most_new > self.capacity:
            raise ValueError(
                f"a fragment of {most_new} rows does not fit a replay of capacity {self.capacity}"
            )
        open_rows = self._open_rows(fragment, self._head + most_new - self.capacity)
        new_first = open_rows < 0
        num_new = most_new - envs + int(new_first.sum())
        head = self._head
        leaving = self._make_room(num_new)
        numbers = np.arange(head, head + num_new)
        first, rest, final, tail = np.split(
            numbers, np.cumsum([new_first.sum(), (steps - 1) * envs, ended.sum()])
        )
        rows = np.empty((steps + 1, envs), np.int64)
        rows[0] = open_rows
        rows[0, new_first] = first
        rows[1:steps] = rest.reshape(steps - 1, envs)
        rows[steps] = tail
        links = rows[1:].copy()
        links[ended] = final
        self._write(fragment, rows, final)
        slots = rows % self._slots
        self._storage.next[final % self._slots] = FINAL
        self._storage.next[slots[steps]] = OPEN
        self._storage.next[slots[:steps]] = links
        self._open.update(
            (stream, row)
            for stream, row in zip(fragment.streams.tolist(), tail.tolist(), strict=True)
            if stream != ANONYMOUS
        )
        added = steps * envs
        self._commit(head + num_new, self._steps - leaving + added, self._total + added)

    def sample_rows(
        self, size: int, rng: np.random.Generator, *, n_step: int = 1, discount: float = 1.0
    ) -> RowSample:
        """Draw steps uniformly, with replacement, and follow each for up to `n_step` rewards.

        Args:
            size: number of transitions B.
            rng: source of randomness.
            n_step: rewards to sum; fewer where the episode or the recorded stream ends first.
            discount: factor per step.

        Raises:
            ValueError: the buffer holds no step.
        """
        storage = self._storage
        rows = self._uniform_rows(size, rng)
        reward = np.take(storage.columns[REWARD], rows)
        terminated = np.take(storage.columns[DONE], rows)
        next_rows = np.take(storage.next, rows) % self._slots
        bootstrap = np.full(size, discount, np.float32)
        for _ in range(n_step - 1):
            going = np.flatnonzero(storage.next[next_rows] >= 0)  # else the chain ends here
            current = next_rows[going]
            reward[going] += bootstrap[going] * storage.columns[REWARD][current]
            terminated[going] = storage.columns[DONE][current]
            bootstrap[going] *= discount
            next_rows[going] = storage.next[current] % self._slots
        bootstrap[terminated] = 0.0
        return RowSample(rows, next_rows, reward, bootstrap)

    def state_dict(self) -> dict[str, Any]:
        """Return what `rewind` needs: plain numbers and lists, no data."""
        start = self.window_start
        return {
            "start": start,
            "head": self._head,
            "steps": self._steps,
            "total": self._total,
            "open": [[stream, row] for stream, row in sorted(self._open.items()) if row >= start],
        }

    def rewind(self, state: Mapping[str, Any]) -> None:
        """Go back to the moment `state_dict` was taken.

        Raises:
            CheckpointError: rows of that moment have been overwritten since, or never existed.
        """
        oldest = self._storage.oldest
        if not oldest <= state["start"] <= state["head"] <= self._head:
            raise CheckpointError(
                f"replay holds rows {oldest} to {self._head} and cannot go back to rows "
                f"{state['start']} to {state['head']}: resume from a later checkpoint, or from the "
                "run that the replay folder belongs to"
            )
        self._commit(state["head"], state["steps"], state["total"])
        self._discard_uncommitted()
        self._open = {int(stream): int(row) for stream, row in state["open"]}
        self.generation += 1

    def close_streams(self) -> None:
        """Let no future fragment continue a stream; each starts anew, as after a reset."""
        self._open.clear()

    def flush(self) -> None:
        """Write everything to disk."""
        self._storage.flush()

    def live_columns(self) -> dict[str, NDArray[Any]]:
        """Return copies of all rows in the window, oldest first, links relative to its start."""
        numbers = np.arange(self.window_start, self.head)
        slots = numbers % self._slots
        live = {key: column[slots] for key, column in self._storage.columns.items()}
        links = self._storage.next[slots]
        live["next"] = np.where(links >= 0, links - self.window_start, links)
        return live

    def load_columns(self, live: dict[str, NDArray[Any]]) -> None:
        """Replace the contents by what `live_columns` returned."""
        links = live["next"]
        count = len(links)
        if count > self.capacity:
            raise ValueError(f"{count} rows do not fit a replay of capacity {self.capacity}")
        for key, column in self._storage.columns.items():
            column[:count] = live[key]
        self._storage.next[:count] = links
        steps = int((links >= 0).sum())
        self._storage.oldest = 0
        self._commit(count, steps, steps)
        self._open.clear()
        self.generation += 1

    def _commit(self, head: int, steps: int, total: int) -> None:
        self._head, self._steps, self._total = head, steps, total
        self._storage.commit((head, steps, total))

    def _uniform_rows(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if len(self) == 0:
            raise ValueError("the replay is empty: add experience before sampling")
        start, head = self.window_start, self._head
        drawn = np.empty(0, np.int64)
        while len(drawn) < size:
            missing = size - len(drawn)
            slots = rng.integers(start, head, missing + missing // 8 + 8) % self._slots
            steps = slots[np.take(self._storage.next, slots) >= 0]
            drawn = steps if len(drawn) == 0 else np.concatenate([drawn, steps])
        return drawn[:size]

    def _open_rows(self, fragment: Fragment, start: int) -> NDArray[np.int64]:
        """Return the row each stream continues, or -1 where it is new or lies before `start`."""
        rows = [self._open.get(stream, -1) for stream in fragment.streams.tolist()]
        open_rows = np.asarray(rows, np.int64)
        open_rows[(open_rows < start) | (not fragment.continues)] = -1
        return open_rows

    def _make_room(self, num_new: int) -> int:
        """Give up the oldest rows before their slots are reused; return how many were steps."""
        start, head = self.window_start, self._head
        leaving = np.arange(start, max(start, head + num_new - self.capacity))
        self._storage.oldest = max(self._storage.oldest, head + num_new - self._slots)
        return int((self._storage.next[leaving % self._slots] >= 0).sum())

    def _write(self, fragment: Fragment, rows: NDArray[np.int64], final: NDArray[np.int64]) -> None:
        """Fill the columns of new rows; what a row does not know yet is zero."""
        steps = rows.shape[0] - 1
        flat = rows[:steps].reshape(-1) % self._slots
        ends = np.concatenate([final, rows[steps]]) % self._slots
        for key, column in self._storage.columns.items():
            if key in self.observation_keys:
                row = (-1, *column.shape[1:])
                column[flat] = fragment.columns[key].reshape(row)
                column[ends[: len(final)]] = fragment.final[key].reshape(row)
                column[ends[len(final) :]] = fragment.tail[key].reshape(row)
            elif key in ("policy_version", "runner"):
                column[flat] = getattr(fragment, key)
                column[ends] = 0
            else:
                known = fragment.columns.get(key) if key == INTERVENTION else fragment.columns[key]
                column[flat] = 0 if known is None else known.reshape(-1, *column.shape[1:])
                column[ends] = 0

    def _discard_uncommitted(self) -> None:
        """Undo links to rows that were never committed, and all that open rows do not know yet."""
        numbers = np.arange(self.window_start, self._head)
        slots = numbers % self._slots
        links = self._storage.next[slots]
        unlinked = slots[(links >= self._head) | (links == OPEN)]
        self._storage.next[unlinked] = OPEN
        for key, column in self._storage.columns.items():
            if key not in self.observation_keys:
                column[unlinked] = 0
        steps = int(((links >= 0) & (links < self._head)).sum())
        if steps != self._steps:
            self._commit(self._head, steps, self._total)


def replay_features(observations: Features, action: Feature) -> Features:
    """Join an env's observations and its action into what a replay stores."""
    return Features({**observations, ACTION: action})
