"""The cache of open videos: least recently used goes first, never more than so many."""

import io

import numpy as np
import pytest

from leray.data.video.cache import VideoCache
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError


@pytest.fixture
def opened(video):
    """A function that opens a file object by key, and the list of those opened."""
    content = video("h264 g=250").path.read_bytes()
    files = []

    def open_one(key):
        files.append((key, io.BytesIO(content)))
        return VideoReader(files[-1][1], name=key)

    open_one.files = files
    return open_one


def still_open(opened):
    return [key for key, file in opened.files if not file.closed]


def test_the_one_unused_longest_is_closed(opened):
    cache = VideoCache(max_open=2)
    a = cache.get("a", lambda: opened("a"))
    cache.get("b", lambda: opened("b"))
    assert cache.get("a", lambda: opened("again")) is a
    cache.get("c", lambda: opened("c"))
    assert still_open(opened) == ["a", "c"]
    cache.get("b", lambda: opened("b"))
    assert still_open(opened) == ["c", "b"]
    assert [key for key, _ in opened.files] == ["a", "b", "c", "b"]


def test_never_more_open_than_allowed(opened):
    cache, rng = VideoCache(max_open=3), np.random.default_rng(0)

    def opener(key):
        assert len(still_open(opened)) < 3  # room is made before
        return opened(key)

    for number in rng.integers(0, 8, 60):
        key = f"video {number}"
        cache.get(key, lambda key=key: opener(key)).read([number])
        assert len(cache) == len(still_open(opened)) <= 3


def test_frames_of_cached_videos(opened, video):
    expected = video("h264 g=250").frames
    with_state = VideoCache(max_open=1)
    for start in range(0, 60, 20):
        reader = with_state.get("a", lambda: opened("a"))
        frames = np.arange(start, start + 20)
        np.testing.assert_array_equal(reader.read(frames), expected[frames])


def test_a_failed_opening_leaves_no_trace(opened, tmp_path):
    cache = VideoCache(max_open=2)
    cache.get("a", lambda: opened("a"))
    with pytest.raises(DatasetError, match="cannot be opened"):
        cache.get("b", lambda: VideoReader(tmp_path / "none.mp4"))
    assert len(cache) == 1
    cache.get("b", lambda: opened("b"))
    assert still_open(opened) == ["a", "b"]


def test_close(opened):
    cache = VideoCache()
    cache.get("a", lambda: opened("a"))
    cache.get("b", lambda: opened("b"))
    cache.close()
    assert still_open(opened) == []
    assert len(cache) == 0
    with pytest.raises(ValueError, match=r"^max_open must be at least 1, not 0$"):
        VideoCache(max_open=0)
