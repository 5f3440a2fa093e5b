"""Windows in time: offsets in frames, clamped at the borders of episodes, computed by hand."""

import numpy as np
import pytest

from leray.data.windows import (
    action_chunk,
    clamp,
    frame_offsets,
    n_step_transition,
    observation_history,
)
from leray.errors import ConfigError


def window(frame: int, offsets: list[int], start: int, end: int) -> tuple[list[int], list[bool]]:
    frames, padded = clamp(np.array([frame]), np.array(offsets), np.array([start]), np.array([end]))
    return frames[0].tolist(), padded[0].tolist()


@pytest.mark.parametrize(
    ("frame", "offsets", "frames", "padded"),
    [
        # An episode of the frames 10 to 14.
        (10, [0, 1, 2], [10, 11, 12], [False, False, False]),
        (13, [0, 1, 2], [13, 14, 14], [False, False, True]),
        (14, [0, 1, 2], [14, 14, 14], [False, True, True]),
        (10, [-2, -1, 0], [10, 10, 10], [True, True, False]),
        (11, [-2, -1, 0], [10, 10, 11], [True, False, False]),
        (12, list(range(-4, 5)), [10, 10, 10, 11, 12, 13, 14, 14, 14], [1, 1, 0, 0, 0, 0, 0, 1, 1]),
        (12, [2, -2, 0], [14, 10, 12], [False, False, False]),
        (12, [3, -3, 0], [14, 10, 12], [True, True, False]),
        (12, [0], [12], [False]),
        (12, [-100, 100], [10, 14], [True, True]),
        (12, [1, 1], [13, 13], [False, False]),
    ],
)
def test_windows_are_clamped_to_their_episode_and_say_so(frame, offsets, frames, padded):
    assert window(frame, offsets, 10, 15) == (frames, [bool(flag) for flag in padded])


def test_an_episode_of_one_frame_is_all_there_is():
    assert window(7, [-1, 0, 1], 7, 8) == ([7, 7, 7], [True, False, True])


def test_each_row_is_clamped_to_its_own_episode():
    frames, padded = clamp(np.array([4, 5]), np.array([-1, 1]), np.array([0, 5]), np.array([5, 10]))
    assert frames.tolist() == [[3, 4], [5, 6]]
    assert padded.tolist() == [[False, True], [True, False]]
    assert frames.dtype == np.int64
    assert padded.dtype == np.bool_


def test_seconds_become_frames():
    times = {"a": [-0.2, -0.1, 0.0, 0.3], "b": [0], "c": [0.1, -0.1], "d": (1 / 3,)}
    offsets = frame_offsets(times, 30.0)
    assert {name: list(frames) for name, frames in offsets.items()} == {
        "a": [-6, -3, 0, 9],
        "b": [0],
        "c": [3, -3],
        "d": [10],
    }
    assert all(frames.dtype == np.int64 for frames in offsets.values())
    assert frame_offsets({"a": [1 / 29.97]}, 29.97)["a"].tolist() == [1]


def test_times_off_the_frames_are_refused_within_the_tolerance_only():
    assert frame_offsets({"a": [0.10009]}, 10.0)["a"].tolist() == [1]
    with pytest.raises(ConfigError, match=r"of a: 0.1002 s is not a multiple of 1/10 s within"):
        frame_offsets({"a": [0.0, 0.1002, 0.2]}, 10.0)
    assert frame_offsets({"a": [0.1002]}, 10.0, tolerance_s=1e-3)["a"].tolist() == [1]
    with pytest.raises(ConfigError, match=r"0.05 s"):
        frame_offsets({"a": [0.05]}, 10.0)


@pytest.mark.parametrize("times", [[], [float("nan")], [float("inf")], [1e30]])
def test_windows_that_mean_nothing_are_refused(times):
    with pytest.raises(ConfigError, match="of action"):
        frame_offsets({"action": times}, 30.0)


@pytest.mark.parametrize("fps", [10.0, 29.97, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("length", [1, 16, 100, 1000])
def test_the_usual_windows_fit_every_frame_rate(fps, length):
    assert frame_offsets(action_chunk(length, fps), fps)["action"].tolist() == list(range(length))
    history = frame_offsets(observation_history(["s", "i"], length, fps), fps)
    assert history["s"].tolist() == history["i"].tolist() == list(range(1 - length, 1))


def test_a_transition_over_n_steps():
    offsets = frame_offsets(n_step_transition(["observation.state"], 3, 10.0), 10.0)
    assert {name: list(frames) for name, frames in offsets.items()} == {
        "observation.state": [0, 3],
        "action": [0, 1, 2],
        "next.reward": [0, 1, 2],
        "next.done": [0, 1, 2],
    }
    # Three frames before the end the successor is gone, which its mask says.
    assert window(12, [0, 3], 10, 15) == ([12, 14], [False, True])
    assert window(12, [0, 1, 2], 10, 15) == ([12, 13, 14], [False, False, False])
