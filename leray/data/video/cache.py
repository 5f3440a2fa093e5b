"""Open videos, kept for the next read, never more than so many."""

from collections import OrderedDict
from collections.abc import Callable

from leray.data.video.reader import VideoReader


class VideoCache:
    """Keeps the videos used last open, with their decoders' state. For one thread.

    Args:
        max_open: videos open at the same time, at most; each holds a file descriptor, a decoder (a
            few pictures of memory) and some 60 bytes per frame.
    """

    def __init__(self, max_open: int = 16) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, not {max_open}")
        self._max_open = max_open
        self._readers: OrderedDict[str, VideoReader] = OrderedDict()

    def __len__(self) -> int:
        return len(self._readers)

    def get(self, key: str, opener: Callable[[], VideoReader]) -> VideoReader:
        """Return the video of a key, opened if it is not; the one unused longest gives way.

        The reader is the cache's: use it before asking for another key, and do not close it.

        Args:
            key: names the video, such as its path.
            opener: opens it.

        Raises:
            DatasetError: it cannot be opened.
        """
        reader = self._readers.get(key)
        if reader is None:
            while len(self._readers) >= self._max_open:
                self._readers.popitem(last=False)[1].close()
            reader = self._readers[key] = opener()
        self._readers.move_to_end(key)
        return reader

    def close(self) -> None:
        """Close all videos; the cache may be used again."""
        while self._readers:
            self._readers.popitem()[1].close()
