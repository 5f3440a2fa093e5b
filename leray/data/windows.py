"""Windows in time around a frame: `delta_timestamps` as offsets, clamped at episode borders."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from leray.data.names import ACTION, DONE, REWARD
from leray.errors import ConfigError

_FARTHEST = 2**52
"""Frames; positions must stay exact in 64 bits."""

DeltaTimestamps = Mapping[str, Sequence[float]]
"""Per feature the times around a frame to take it at, in seconds; 0 is the frame itself."""


def frame_offsets(
    delta_timestamps: DeltaTimestamps, fps: float, *, tolerance_s: float = 1e-4
) -> dict[str, NDArray[np.int64]]:
    """Return windows in frames [T] per feature.

    Args:
        delta_timestamps: times in seconds.
        fps: frames per second of the dataset.
        tolerance_s: how far a time may lie from a frame's.

    Raises:
        ConfigError: a window is empty, or a time does not fall on a frame.
    """
    offsets = {}
    for name, times in delta_timestamps.items():
        seconds = np.asarray(times, dtype=np.float64).reshape(-1)
        if not len(seconds):
            raise ConfigError(f"delta_timestamps of {name} is empty; give at least one time, as 0")
        with np.errstate(invalid="ignore"):
            frames = np.round(seconds * fps)
            error = np.abs(frames / fps - seconds)
        error[~(np.abs(frames) < _FARTHEST)] = np.inf
        if error.max() > tolerance_s:
            worst = float(seconds[int(error.argmax())])
            raise ConfigError(
                f"delta_timestamps of {name}: {worst} s is not a multiple of 1/{fps:g} s within "
                f"{tolerance_s} s; give multiples"
            )
        offsets[name] = frames.astype(np.int64)
    return offsets


def clamp(
    frames: NDArray[np.int64],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the frames of windows and which of them were clamped to their episode.

    Args:
        frames: the windows' own frames [B].
        offsets: of the window [T].
        starts: first frame of each one's episode [B].
        ends: frame after the last of each one's episode [B].

    Returns:
        Frames int64 [B, T], and bool [B, T], true where the window left the episode and the frame
        is the episode's first or last one instead.
    """
    wanted = frames[:, None] + offsets
    inside = np.clip(wanted, starts[:, None], ends[:, None] - 1)
    return inside, inside != wanted


def action_chunk(length: int, fps: float) -> dict[str, list[float]]:
    """Return the window of the next actions: the frame's own and those after it."""
    return {ACTION: [step / fps for step in range(length)]}


def observation_history(keys: Iterable[str], length: int, fps: float) -> dict[str, list[float]]:
    """Return the window of past observations, oldest first, ending at the frame."""
    return {key: [step / fps for step in range(1 - length, 1)] for key in keys}


def n_step_transition(keys: Iterable[str], steps: int, fps: float) -> dict[str, list[float]]:
    """Return the windows of a transition over several steps.

    Observations are taken at the frame and `steps` later; actions, rewards and ends at every step
    between. A chain that leaves its episode shows in the masks.
    """
    between = [step / fps for step in range(steps)]
    observations = {key: [0.0, steps / fps] for key in keys}
    return observations | {name: list(between) for name in (ACTION, REWARD, DONE)}
