"""Batches for a learner: n-step transitions from online and offline replay in a set ratio."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.replay.hindsight import Hindsight
from leray.algorithms.replay.ring import ReplayBuffer, RowSample
from leray.data.names import ACTION, REWARD

BOOTSTRAP = "bootstrap"
"""discount^n where the state after the n steps is not terminal, else 0."""
OFFLINE = "is_offline"
"""1.0 where the transition comes from the offline replay, else 0.0."""
NEXT = "next."
"""Prefix of the observation after the n steps."""

Batch = dict[str, Tensor]


class _Staging:
    """Host memory for one batch; on CUDA pinned, and refilled only after the device copied it."""

    def __init__(self, buffers: Batch, device: torch.device) -> None:
        self.buffers = buffers
        self.arrays = {key: tensor.numpy() for key, tensor in buffers.items()}
        self._device = device
        self._copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Return when the buffers may be filled again."""
        if self._copied is not None:
            self._copied.synchronize()

    def on_device(self) -> Batch:
        """Return the batch on its device; on the CPU that is the buffers themselves."""
        if self._device.type == "cpu":
            return self.buffers
        pinned = self._copied is not None
        batch = {
            key: tensor.to(self._device, non_blocking=pinned, copy=True)
            for key, tensor in self.buffers.items()
        }
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))
        return batch


class ReplaySampler:
    """Draws batches whose first rows come from the online and whose last rows from offline data.

    This is the symmetric sampling of RLPD (Ball et al. 2023, section 4.1, arXiv 2302.02948) for a
    ratio of one half. Without offline data all rows are online, and the other way round.

    Args:
        online: replay of the agent's own experience, or None.
        offline: replay of demonstrations and interventions, or None.
        batch_size: transitions B per batch.
        online_ratio: share of online transitions when both are there.
        n_step: rewards summed per transition.
        discount: factor per step.
        seed: seed of the draws.
        device: where batches go.
        hindsight: relabels transitions of goal tasks; None leaves all as they were.
    """

    def __init__(
        self,
        online: ReplayBuffer | None,
        offline: ReplayBuffer | None,
        *,
        batch_size: int,
        online_ratio: float,
        n_step: int,
        discount: float,
        seed: int,
        device: torch.device,
        hindsight: Hindsight | None = None,
    ) -> None:
        self.online = online
        self.offline = offline
        self.batch_size = batch_size
        self._online_ratio = online_ratio
        self._n_step = n_step
        self._discount = discount
        self._rng = np.random.default_rng(seed)
        self._device = device
        self._hindsight = hindsight
        copies = 2 if device.type == "cuda" else 1  # one is filled while the other is copied
        self._staging = [_Staging(self._allocate(), device) for _ in range(copies)]

    def sample(self) -> Batch:
        """Return B transitions; on the CPU their tensors are reused by the next call.

        They are `observation.*`, `action`, `next.reward`, `bootstrap`, `is_offline` and
        `next.observation.*`.
        """
        staging = self._staging.pop(0)
        self._staging.append(staging)
        staging.wait()
        num_online = self._num_online()
        staging.arrays[OFFLINE][:num_online] = 0.0
        staging.arrays[OFFLINE][num_online:] = 1.0
        if num_online and self.online is not None:
            self._fill(self.online, staging.arrays, slice(0, num_online))
        if num_online < self.batch_size and self.offline is not None:
            self._fill(self.offline, staging.arrays, slice(num_online, self.batch_size))
        return staging.on_device()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random draws, as plain numbers."""
        return dict(self._rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random draws of `state_dict`."""
        self._rng.bit_generator.state = state

    def _num_online(self) -> int:
        online = 0 if self.online is None else len(self.online)
        offline = 0 if self.offline is None else len(self.offline)
        if not offline:
            return self.batch_size
        return round(self.batch_size * self._online_ratio) if online else 0

    def _allocate(self) -> Batch:
        source = self.online if self.online is not None else self.offline
        if source is None:
            raise ValueError("give an online replay, an offline one, or both")
        pin = self._device.type == "cuda"

        def buffer(key: str) -> Tensor:
            column = source.columns[key]
            dtype = torch.from_numpy(np.empty(0, column.dtype)).dtype
            dtype = torch.float32 if dtype == torch.float64 else dtype
            return torch.empty(self.batch_size, *column.shape[1:], dtype=dtype, pin_memory=pin)

        batch = {key: buffer(key) for key in (*source.observation_keys, ACTION, REWARD)}
        batch |= {NEXT + key: buffer(key) for key in source.observation_keys}
        batch[BOOTSTRAP] = torch.empty(self.batch_size, pin_memory=pin)
        batch[OFFLINE] = torch.empty(self.batch_size, pin_memory=pin)
        return batch

    def _fill(self, replay: ReplayBuffer, arrays: dict[str, NDArray[Any]], part: slice) -> None:
        drawn: RowSample = replay.sample_rows(
            part.stop - part.start, self._rng, n_step=self._n_step, discount=self._discount
        )
        hindsight = self._hindsight
        goals = None if hindsight is None else hindsight.choose(replay, drawn, self._rng)
        for prefix, rows in (("", drawn.rows), (NEXT, drawn.next_rows)):
            parts = {key: arrays[prefix + key][part] for key in replay.observation_keys}
            for key, out in parts.items():
                _gather(replay.columns[key], rows, out)
            if hindsight is not None and goals is not None:
                hindsight.relabel(goals, parts)
        _gather(replay.columns[ACTION], drawn.rows, arrays[ACTION][part])
        arrays[REWARD][part] = drawn.reward
        arrays[BOOTSTRAP][part] = drawn.bootstrap


def _gather(column: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy rows of a column into a batch buffer; float64 columns are narrowed."""
    if column.dtype == out.dtype:
        np.take(column, rows, axis=0, out=out, mode="clip")  # "raise" would copy through a buffer
    else:
        out[:] = column[rows]
