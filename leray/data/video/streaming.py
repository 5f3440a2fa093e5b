"""Encoding beside a control loop: frames wait in a queue, a thread compresses them."""

import queue
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from leray.data.video.encoder import VideoEncoder
from leray.data.video.options import VideoOptions
from leray.errors import DatasetError

QUEUE_FRAMES = 30
"""Frames that may wait; one of 640x480 takes 0.9 MB."""


class StreamingEncoder:
    """A `VideoEncoder` whose work is done by a thread of its own; for one camera.

    `add` copies the frame and returns at once. No frame is ever dropped: when the queue is full,
    `add` waits, and `blocked_s` counts how long. An error of the thread is raised by the next call.

    Args:
        path: the mp4 to make; an existing file is replaced at the end.
        fps: frames per second.
        options: how to compress; LeRobot's defaults when None.
        queue_frames: frames that may wait to be compressed.

    Raises:
        ConfigError: as `VideoEncoder`.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: int | Fraction,
        options: VideoOptions | None = None,
        queue_frames: int = QUEUE_FRAMES,
    ) -> None:
        self.path = path
        """The mp4 that `close` completes."""
        self.blocked_s = 0.0
        """Seconds that `add` has waited in all; above zero, the encoder is too slow."""
        self._encoder = VideoEncoder(path, fps=fps, options=options)
        self._queue: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(max(queue_frames, 1))
        self._error: BaseException | None = None
        self._encoding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of frames that wait to be compressed."""
        return self._queue.qsize()

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Hand over one frame; it is copied.

        Args:
            frame: RGB [H, W, 3].

        Raises:
            FeatureMismatchError, ConfigError: the frame does not fit, as `VideoEncoder.check`.
            DatasetError, OSError: an earlier frame could not be compressed or written.
        """
        self._raise_error()
        try:
            self._encoder.check(frame)
        except DatasetError:
            with self._encoding:  # aborted in this moment: the thread is about to say why
                self._raise_error()
            raise
        frame = frame.copy()
        try:
            self._queue.put_nowait(frame)
        except queue.Full:
            began = time.monotonic()
            self._queue.put(frame)
            self.blocked_s += time.monotonic() - began

    def close(self) -> int:
        """Wait for the queued frames, complete the file and return the number of frames.

        Raises:
            DatasetError, OSError: as `VideoEncoder.close`, or an error of the thread.
        """
        self._stop()
        self._raise_error()
        return self._encoder.close()

    def abort(self) -> None:
        """Drop all frames and delete the temporary file; after `close` this does nothing."""
        while self._drop_one():
            pass
        self._stop()
        self._encoder.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _run(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._error is not None:
                continue  # the queue is emptied, so that `add` returns
            with self._encoding:
                try:
                    self._encoder.add(frame)
                except BaseException as error:
                    self._error = error

    def _drop_one(self) -> bool:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return False
        return True

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
