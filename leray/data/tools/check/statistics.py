"""Stored statistics against the numbers themselves, and against what is possible at all."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature
from leray.data.image_statistics import is_std_possible
from leray.data.lerobot import layout
from leray.data.lerobot.schema import BOOKKEEPING
from leray.data.statistics import KEYS, QUANTILES, FeatureStatistics, Statistics
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.data.tools.check.stored_statistics import EpisodeStatistics
from leray.data.tools.check.tables import Arrays, Piece
from leray.data.tools.check.values import Floats, Moments, Shares, ValueCheck
from leray.errors import DatasetError

_RELATIVE = 1e-3
"""By how much a mean or standard deviation may be off, as a share of the spread or the value."""
_SINGLE_PRECISION = 1e-6
"""Relative error of values that were rounded to float32 on the way."""
_QUANTILE_SHARE = 0.1
"""Frames, as a share of all, by which a quantile may miss its place."""

Problem = tuple[Literal["error", "warning", "note"], str]


class EpisodeStatisticsCheck:
    """Compares the stored statistics of each episode with its rows, when it has been read."""

    def __init__(self, contents: Contents, findings: Findings, values: ValueCheck) -> None:
        self._contents = contents
        self._findings = findings
        self._values = values
        self._stored: EpisodeStatistics | None = EpisodeStatistics(contents.root, contents.version)
        self._file = "meta/episodes" if contents.is_v3 else layout.EPISODES_STATS_JSONL
        self._notes: Counter[tuple[str, str]] = Counter()

    def take(self, piece: Piece, arrays: Arrays) -> None:
        """Compare, if the piece is the last of its episode; `values` must have taken it."""
        if not piece.is_last or self._stored is None:
            return
        index = int(self._contents.episodes.index[piece.position])
        length = int(self._contents.episodes.length[piece.position])
        where: dict[str, Any] = {"file": self._file, "episode": index, "repairable": True}
        try:
            stored = self._stored.take(index)
        except DatasetError as error:
            self._findings.error("episode-statistics", str(error), file=self._file)
            self._stored = None
            return
        if stored is None:
            self._findings.warning("episode-statistics", "there are none", **where)
            return
        for name, feature in self._contents.features.items():
            moments = self._values.episode.get(name) if name in arrays else None
            if moments is not None and moments.count != length:
                continue
            for severity, problem in entry_problems(stored.get(name), name, feature, moments):
                if severity == "note":
                    self._notes[name, problem] += 1
                else:
                    add = getattr(self._findings, severity)
                    add("episode-statistics", problem, column=name, **where)

    def finish(self) -> None:
        """Report what is only worth a note, once for all episodes."""
        for (name, problem), count in self._notes.items():
            self._findings.note(
                "episode-statistics",
                f"{problem} ({count:,} episodes)",
                file=self._file,
                column=name,
                repairable=True,
            )


def check_statistics(
    contents: Contents, findings: Findings, stored: Statistics | None, values: ValueCheck
) -> None:
    """Compare the statistics of the whole dataset with its rows."""
    where: dict[str, Any] = {"file": layout.STATS, "repairable": True}
    if not len(contents.episodes):
        return
    if stored is None:
        # v2.1 keeps those of the episodes only; they are combined when a dataset is opened.
        if contents.version != "v2.1" and not (contents.root / layout.STATS).is_file():
            findings.error("statistics", "is missing", **where)
        return
    for name, feature in contents.features.items():
        moments = values.total.get(name)
        if moments is not None and moments.count != contents.episodes.frames:
            continue
        is_normalised = name not in BOOKKEEPING and feature.kind != "bool"
        shares = values.shares.get(name) if is_normalised else None
        for severity, problem in entry_problems(stored.get(name), name, feature, moments, shares):
            getattr(findings, severity)("statistics", problem, column=name, **where)


def entry_problems(
    entry: FeatureStatistics | None,
    name: str,
    feature: Feature,
    moments: Moments | None,
    shares: Shares | None = None,
) -> Iterator[Problem]:
    """Yield what is wrong with the statistics of one feature.

    Args:
        entry: as stored; None or empty when there is none.
        name: of the feature.
        feature: its declaration.
        moments: those of the rows; None where they are unknown.
        shares: places of the stored quantiles among the rows; None where they are unknown.
    """
    if not (feature.is_numeric or feature.is_visual):
        return
    if not entry:
        severity: Literal["warning", "note"] = "note" if name in BOOKKEEPING else "warning"
        yield severity, "there are none"
        return
    yield from _completeness(entry)
    shape = (feature.image_shape[2], 1, 1) if _is_picture(feature) else feature.shape
    misshapen = [k for k, v in entry.items() if v.shape != ((1,) if k == "count" else shape)]
    for key in misshapen:
        wanted = [1] if key == "count" else list(shape)
        yield "error", f"{key} has shape {list(entry[key].shape)}, it must be {wanted}"
    sound = {
        key: value.reshape(-1).astype(np.float64)
        for key, value in entry.items()
        if key not in misshapen
    }
    yield from _order(sound)
    if feature.is_visual:
        yield from _picture_problems(sound, is_depth=shape[0] == 1)
    elif moments is not None:
        yield from _differences(sound, moments)
        if shares is not None:
            yield from _displaced(shares, moments.count)


def _is_picture(feature: Feature) -> bool:
    return feature.is_visual and len(feature.shape) == 3


def _completeness(entry: FeatureStatistics) -> Iterator[Problem]:
    lacking = [key for key in KEYS if key not in entry]
    if needed := [key for key in lacking if key in ("min", "max", "mean", "std")]:
        yield "error", f"{', '.join(needed)} are missing"
    elif lacking:
        yield "note", f"{', '.join(lacking)} are missing; datasets before v3.0 lack them"


def _order(entry: dict[str, Floats]) -> Iterator[Problem]:
    """Check that minimum, quantiles and maximum ascend, and that the deviation is none below 0."""
    known = [key for key in ("min", *QUANTILES, "max") if key in entry]
    for lower, upper in pairwise(known):
        slack = _SINGLE_PRECISION * np.maximum(np.abs(entry[lower]), np.abs(entry[upper]))
        if (entry[lower] > entry[upper] + slack + 1e-12).any():
            yield "error", f"{lower} is above {upper}"
    if "std" in entry and (entry["std"] < 0).any():
        yield "error", "std is below 0"
    if "count" in entry and (entry["count"] < 1).any():
        yield "error", f"count is {entry['count'][0]:g}"


def _picture_problems(entry: dict[str, Floats], *, is_depth: bool) -> Iterator[Problem]:
    for key, value in entry.items():
        if is_depth or key == "count":  # depth is stored in its own unit
            continue
        if not ((value >= -1e-6) & (value <= 1 + 1e-6)).all():
            yield "error", f"{key} is {value.tolist()}; levels of pictures lie in [0, 1]"
            return
    if "std" in entry and not is_std_possible(dict(entry)):
        yield (
            "warning",
            "std is below what the quantiles allow: LeRobot 0.4.0 to 0.5.1 computed it wrongly",
        )


def _differences(entry: dict[str, Floats], moments: Moments) -> Iterator[Problem]:
    """Compare with the exact values: extremes to the bit, moments loosely."""
    if "count" in entry and entry["count"][0] != moments.count:
        yield "error", f"count is {entry['count'][0]:g}, there are {moments.count} frames"
    for key, exact in (("min", moments.low), ("max", moments.high)):
        if key not in entry or np.array_equal(entry[key], exact, equal_nan=True):
            continue
        rounded = np.isclose(entry[key], exact, rtol=_SINGLE_PRECISION, atol=0, equal_nan=True)
        if rounded.all():
            yield "note", f"{key} is rounded to single precision"
        else:
            yield "error", _difference(key, entry[key], exact, ~rounded)
    spread, size = moments.std, np.maximum(np.abs(moments.low), np.abs(moments.high))
    for key, exact in (("mean", moments.mean), ("std", spread)):
        if key not in entry or not np.isfinite(exact).all():
            continue
        allowed = _RELATIVE * np.maximum(np.abs(exact), spread) + 10 * _SINGLE_PRECISION * size
        off = ~(np.abs(entry[key] - exact) <= allowed)
        if off.any():
            yield "error", _difference(key, entry[key], exact, off)


def _displaced(shares: Shares, count: int) -> Iterator[Problem]:
    """Note quantiles that lie far from where the rows have them."""
    for key in shares.quantiles:
        fraction = QUANTILES[key]
        low, high = shares.below[key] / count, shares.up_to[key] / count
        off = np.maximum(low - fraction, fraction - high)
        if (off > _QUANTILE_SHARE).any():
            worst = int(off.argmax())
            lies = f"{low[worst]:.0%} of the frames are below it"
            yield "note", f"{key} is an estimate{_at(worst, off)}: {lies}"


def _difference(key: str, stored: Floats, exact: Floats, off: NDArray[np.bool_]) -> str:
    worst = int(np.flatnonzero(off)[0])
    return f"{key}{_at(worst, off)} is {stored[worst]:.6g}, the frames give {exact[worst]:.6g}"


def _at(element: int, values: NDArray[Any]) -> str:
    return f" of element {element}" if len(values) > 1 else ""
