"""Checks of what is recorded: every way in which a frame or an episode may not fit."""

import numpy as np
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot.frames import FrameBuffer, check_episode
from leray.errors import FeatureMismatchError

FEATURES = Features(
    {
        "action": Feature("float64", (2,)),
        "next.reward": Feature("float32", (1,)),
        "next.done": Feature("bool", (1,)),
        "grid": Feature("int16", (2, 3)),
        "note": Feature("string", (1,)),
    }
)


def make_episode(length: int) -> dict:
    return {
        "action": np.arange(length * 2.0).reshape(length, 2),
        "next.reward": np.arange(length, dtype=np.float32),
        "next.done": np.arange(length) == length - 1,
        "grid": np.zeros((length, 2, 3), dtype=np.int16),
        "note": [f"frame {frame}" for frame in range(length)],
    }


def make_frame(**overrides) -> dict:
    return {name: values[0] for name, values in make_episode(1).items()} | overrides


def test_scalars_may_have_either_shape():
    buffer = FrameBuffer(FEATURES)
    buffer.add(make_frame(), "a")
    buffer.add(make_frame(**{"next.reward": np.ones(1, np.float32), "note": ["x"]}), "b")
    columns = buffer.columns()
    assert buffer.tasks == ["a", "b"]
    assert columns["next.reward"].tolist() == [0, 1]
    assert columns["note"].tolist() == ["frame 0", "x"]
    assert columns["grid"].shape == (2, 2, 3)
    wide = make_episode(3) | {"next.reward": np.zeros((3, 1), np.float32)}
    assert check_episode(FEATURES, wide, "t")["next.reward"].shape == (3,)


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"action": np.zeros(3)}, "action (shape [3], declared [2])"),
        ({"action": np.zeros(2, np.float32)}, "action (dtype float32, declared float64)"),
        ({"next.reward": 0.5}, "next.reward (dtype float64, declared float32)"),
        ({"next.done": np.array(1)}, "next.done (dtype int64, declared bool)"),
        ({"grid": np.zeros(6, np.int16)}, "grid (shape [6], declared [2, 3])"),
        ({"note": 5}, "note (must be text)"),
        ({"note": ["a", "b"]}, "note (shape [2], declared [1])"),
        ({"action": [[1.0], [1.0, 2.0]]}, "action (dtype object"),
        ({"timestamp": 0.0}, "timestamp (not declared)"),
    ],
)
def test_frames_that_do_not_fit_are_refused(overrides, fragment):
    buffer = FrameBuffer(FEATURES)
    with pytest.raises(FeatureMismatchError) as caught:
        buffer.add(make_frame(**overrides), "t")
    assert fragment in str(caught.value)
    assert len(buffer) == 0


def test_one_error_names_every_difference():
    frame = make_frame(action=np.zeros(3), extra=1)
    del frame["note"]
    with pytest.raises(FeatureMismatchError, match=r"note \(missing\); extra \(not declared\)"):
        FrameBuffer(FEATURES).add(frame, "t")


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"action": np.zeros((3, 2))}, "lengths differ"),
        ({"action": np.zeros((0, 2))}, "action (has no frames)"),
        ({"action": np.zeros((4, 3))}, "action (shape [3], declared [2])"),
        ({"note": "abcd"}, "note (has no frames)"),
        ({"note": [1, 2, 3, 4]}, "note (must be text)"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(overrides, fragment):
    with pytest.raises(FeatureMismatchError) as caught:
        check_episode(FEATURES, make_episode(4) | overrides, "t")
    assert fragment in str(caught.value)


def test_a_task_is_text():
    with pytest.raises(FeatureMismatchError, match="a task is a text, not 3"):
        FrameBuffer(FEATURES).add(make_frame(), 3)


CAMERAS = Features(
    {
        "action": Feature("float32", (1,)),
        "last": Feature("video", (4, 6, 3), ("height", "width", "channels")),
        "first": Feature("image", (3, 4, 6), ("channels", "height", "width")),
    }
)


def make_pictures(**overrides) -> dict:
    rng = np.random.default_rng(0)
    last = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return {"action": np.float32(1), "last": last, "first": np.moveaxis(last, -1, 0)} | overrides


def test_pictures_come_back_with_channels_last_and_are_not_kept():
    buffer, frame = FrameBuffer(CAMERAS), make_pictures()
    pictures = buffer.add(frame, "t")
    assert list(pictures) == ["last", "first"]
    for picture in pictures.values():
        np.testing.assert_array_equal(picture, frame["last"])
    assert list(buffer.columns()) == ["action"]
    episode = {name: np.stack([value, value]) for name, value in frame.items()}
    arrays = check_episode(CAMERAS, episode, "t")
    assert arrays["first"].shape == arrays["last"].shape == (2, 4, 6, 3)


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"last": np.zeros((4, 6, 3), np.float32)}, "last (dtype float32, pictures are uint8"),
        ({"last": np.zeros((3, 4, 6), np.uint8)}, "last (shape [3, 4, 6], declared [4, 6, 3])"),
        ({"first": np.zeros((4, 6, 3), np.uint8)}, "first (shape [4, 6, 3], declared [3, 4, 6])"),
        ({"first": np.zeros((4, 6), np.uint8)}, "first (shape [4, 6]"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(overrides, fragment):
    buffer = FrameBuffer(CAMERAS)
    with pytest.raises(FeatureMismatchError) as caught:
        buffer.add(make_pictures(**overrides), "t")
    assert fragment in str(caught.value)
    assert len(buffer) == 0


def test_lengths_of_what_is_given_in_other_forms_count():
    with pytest.raises(FeatureMismatchError, match="lengths differ: front 5, task 3, action 4"):
        check_episode(FEATURES, make_episode(4), ["a", "b", "b"], {"front": 5})
    with pytest.raises(FeatureMismatchError, match=r"task \(has no frames\)"):
        check_episode(Features({}), {}, [])
    with pytest.raises(FeatureMismatchError, match="a task is a text, not 3"):
        check_episode(FEATURES, make_episode(4), 3)
    with pytest.raises(FeatureMismatchError, match="a task is a text, not 3"):
        check_episode(FEATURES, make_episode(2), ["a", 3])
