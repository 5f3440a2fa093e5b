"""The bookkeeping columns: what every row must say by the place where it stands."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leray.data import names
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.data.tools.check.tables import Arrays, Piece

_MAX_RATE_ERROR = 0.01
"""Timestamps that advance further off the frame rate belong to another frame rate."""


@dataclass(slots=True)
class _Wrong:
    """Rows of one column of an episode that hold something else than they should."""

    count: int = 0
    first: str = ""


@dataclass(slots=True)
class _Times:
    """The timestamps of an episode against frame number / fps, in seconds."""

    first: float = np.nan
    last: float = np.nan
    frames: int = 0
    lowest: float = np.inf
    """Smallest difference from what is expected."""
    highest: float = -np.inf
    worst_frame: int = 0
    backwards: int | None = None
    """First frame that is not later than the one before."""


@dataclass(slots=True)
class _Episode:
    """What was seen of the episode that is being read."""

    wrong: dict[str, _Wrong] = field(default_factory=dict)
    right: set[str] = field(default_factory=set)
    times: _Times = field(default_factory=_Times)
    tasks: set[int] = field(default_factory=set)


class RowCheck:
    """Checks `index`, `episode_index`, `frame_index`, `timestamp` and `task_index`.

    Args:
        contents: the dataset.
        findings: gains one finding per episode and column that is wrong.
        tolerance_s: by how much a timestamp may differ from frame number / fps.
    """

    def __init__(self, contents: Contents, findings: Findings, tolerance_s: float) -> None:
        self._contents = contents
        self._findings = findings
        self._tolerance_s = tolerance_s
        self._episode = _Episode()

    def take(self, piece: Piece, arrays: Arrays) -> None:
        """Check some rows; findings about an episode come when it ends."""
        table = self._contents.episodes
        frame = np.arange(piece.offset, piece.offset + piece.count)
        expected = {
            names.FRAME_INDEX: frame,
            names.INDEX: self._contents.first_frame[piece.position] + frame,
            names.EPISODE_INDEX: np.full(piece.count, table.index[piece.position]),
        }
        for name, values in expected.items():
            if name in arrays and is_count(arrays[name]):
                self._compare(name, piece, arrays[name], values)
        times = arrays.get(names.TIMESTAMP)
        if times is not None and times.dtype.kind == "f" and times.ndim == 1:
            with np.errstate(all="ignore"):
                self._time(piece, times)
        if names.TASK_INDEX in arrays and is_count(arrays[names.TASK_INDEX]):
            self._episode.tasks.update(np.unique(arrays[names.TASK_INDEX]).tolist())
        if piece.is_last:
            self._finish(piece)
            self._episode = _Episode()

    def _compare(
        self, name: str, piece: Piece, values: NDArray[np.int64], expected: NDArray[np.int64]
    ) -> None:
        rows = np.flatnonzero(values != expected)
        if not len(rows):
            self._episode.right.add(name)
            return
        wrong = self._episode.wrong.setdefault(name, _Wrong())
        if not wrong.count:
            row = int(rows[0])
            wrong.first = f"{values[row]} at frame {piece.offset + row}, not {expected[row]}"
        wrong.count += len(rows)

    def _time(self, piece: Piece, stored: NDArray[np.floating]) -> None:
        times = self._episode.times
        seconds = stored.astype(np.float64)
        if not times.frames:
            times.first = float(seconds[0])
        expected = np.arange(piece.offset, piece.offset + piece.count) / self._contents.fps
        # What the stored precision cannot express is no error.
        slack = np.spacing(np.abs(expected).astype(stored.dtype)).astype(np.float64)
        error = seconds - expected
        error = np.sign(error) * np.maximum(np.abs(error) - slack, 0)
        size = np.abs(error)
        if size.max() > max(abs(times.lowest), abs(times.highest)) or not times.frames:
            times.worst_frame = piece.offset + int(size.argmax())
        times.lowest = min(times.lowest, float(error.min()))
        times.highest = max(times.highest, float(error.max()))
        steps = np.diff(seconds, prepend=times.last if times.frames else seconds[0] - 1)
        if times.backwards is None and (steps <= 0).any():
            times.backwards = piece.offset + int(np.argmax(steps <= 0))
        times.last = float(seconds[-1])
        times.frames += piece.count

    def _finish(self, piece: Piece) -> None:
        self._report_wrong(piece)
        self._report_times(piece)
        self._report_tasks(piece)

    def _is_certain(self, piece: Piece) -> bool:
        """Tell whether the rows are known to be this episode's, so that they can be numbered."""
        certain = self._episode.right - set(self._episode.wrong)
        return piece.is_alone or bool(certain & {names.FRAME_INDEX, names.EPISODE_INDEX})

    def _report_wrong(self, piece: Piece) -> None:
        for name, wrong in self._episode.wrong.items():
            self._findings.error(
                name,
                f"{wrong.count} rows hold another number than their place makes it: {wrong.first}",
                file=piece.file,
                episode=self._index(piece),
                column=name,
                repairable=self._is_certain(piece),
                blocks=name == names.EPISODE_INDEX,
            )

    def _report_times(self, piece: Piece) -> None:
        times = self._episode.times
        problem, repairable = self._time_problem(times)
        if problem:
            self._findings.error(
                names.TIMESTAMP,
                problem,
                file=piece.file,
                episode=self._index(piece),
                column=names.TIMESTAMP,
                repairable=repairable and self._is_certain(piece),
            )

    def _time_problem(self, times: _Times) -> tuple[str, bool]:
        """Say what is wrong with an episode's timestamps, and whether they can be counted anew."""
        fps = self._contents.fps
        if not times.frames:
            return "", False
        if not np.isfinite([times.lowest, times.highest]).all():
            return "some are not finite", True
        if is_other_rate(times.first, times.last, times.frames, fps):
            step = (times.last - times.first) / (times.frames - 1)
            return f"they advance by {step:.6g} s, {fps:g} fps make it {1 / fps:.6g} s", False
        if times.backwards is not None:
            return f"frame {times.backwards} is not later than the one before", True
        off = max(abs(times.lowest), abs(times.highest))
        if off <= self._tolerance_s:
            return "", False
        if times.highest - times.lowest <= self._tolerance_s:
            return f"they begin at {times.first:.6g} s instead of 0, and go on regularly", True
        return (
            f"they differ by up to {off:.6g} s from frame_index / fps (frame {times.worst_frame}); "
            f"allowed are {self._tolerance_s:g} s",
            True,
        )

    def _report_tasks(self, piece: Piece) -> None:
        known, used = self._contents.task_of, self._episode.tasks
        where = {"episode": self._index(piece), "column": names.TASK_INDEX}
        if self._contents.task_rows is not None and (unknown := sorted(used - set(known))):
            message = f"{unknown[0]} is in no row of the tasks table"
            self._findings.error(
                names.TASK_INDEX, message, file=piece.file, repairable=True, **where
            )
        texts = {str(known[index]) for index in used if index in known}
        listed = set(self._contents.episodes.tasks[piece.position])
        if lacking := sorted(texts - listed):
            message = f"its tasks lack {lacking[0]!r}, which its frames have"
            self._findings.error("episode-tasks", message, repairable=True, **where)
        if used and len(used) == len(texts) and (unused := sorted(listed - texts)):
            message = f"its tasks list {unused[0]!r}, which no frame has in task_index"
            self._findings.note("episode-tasks", message, **where)

    def _index(self, piece: Piece) -> int:
        return int(self._contents.episodes.index[piece.position])


def is_count(values: NDArray[np.generic]) -> bool:
    """Tell whether a column holds one integer per row."""
    return values.ndim == 1 and values.dtype.kind in "iu"


def is_other_rate(first_s: float, last_s: float, frames: int, fps: float) -> bool:
    """Tell whether timestamps advance at another frame rate than the dataset's."""
    if frames < 2 or last_s <= first_s:
        return False
    step_s = (last_s - first_s) / (frames - 1)
    return abs(step_s * fps - 1) > max(_MAX_RATE_ERROR, 1 / frames)
