"""Progress of a command over a dataset: how much is done, and the time left."""

import time
from types import TracebackType
from typing import Self

from leray.platform.progress import Progress

_LINES = 10
"""Lines that are printed in all where they cannot be redrawn."""
_REDRAW_S = 0.2


class Steps:
    """Shows steps as they are reported, not more often than a person can read.

    Example:
        >>> with Steps() as steps:  # doctest: +SKIP
        ...     convert(root, output, on_progress=steps)
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._shown = 0
        self._shown_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Take a report of `done` steps of `total`."""
        if self._progress is None:
            self._progress = Progress(total)
        now = time.monotonic()
        if self._progress.is_live:
            is_due = done == total or now - self._shown_at >= _REDRAW_S
        else:
            is_due = done == total or (done - self._shown) * _LINES >= total
        if is_due:
            self._progress.update(done, {})
            self._shown, self._shown_at = done, now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.close()
