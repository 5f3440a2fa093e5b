"""The numbers themselves: NaN and infinite values, elements that never change, and moments."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature, Features
from leray.data.statistics import QUANTILES, FeatureStatistics, Statistics
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.data.tools.check.tables import Arrays, Piece

_NAMED = 4
"""Elements that a message names at most."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Moments:
    """Exact statistics of frames seen so far, but for quantiles; arrays are float64 [size]."""

    count: int
    low: Floats
    high: Floats
    mean: Floats
    squares: Floats
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, values: Floats) -> "Moments":
        """Return those of values [frames, size], at least one frame.

        Values are shifted by the first frame before summing, as in `leray.data.statistics`.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            shifted = values - values[0]
            offset = shifted.mean(axis=0)
            squares = np.square(shifted - offset).sum(axis=0)
            mean = values[0] + offset
        return cls(len(values), values.min(axis=0), values.max(axis=0), mean, squares)

    def add(self, other: "Moments") -> None:
        """Include the frames of another part."""
        count = self.count + other.count
        with np.errstate(invalid="ignore", over="ignore"):
            distance = other.mean - self.mean
            share = other.count / count
            self.squares = self.squares + other.squares + np.square(distance) * self.count * share
            self.mean = self.mean + distance * share
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.count = count

    @property
    def std(self) -> Floats:
        """Standard deviation of the population."""
        with np.errstate(invalid="ignore"):
            deviation: Floats = np.sqrt(self.squares / self.count)
        return deviation


@dataclass(slots=True)
class Shares:
    """Which share of the frames lies below stored quantiles; shows how far off they are."""

    quantiles: FeatureStatistics
    """Stored values by key, each flat [size]."""
    below: dict[str, Floats]
    """Frames below each of them [size]."""
    up_to: dict[str, Floats]
    """Frames below or at each of them [size]."""

    @classmethod
    def of(cls, stored: Mapping[str, NDArray[np.generic]], size: int) -> "Shares":
        """Begin to count for those stored quantiles that have the right size."""
        quantiles = {
            key: value.reshape(-1).astype(np.float64)
            for key in QUANTILES
            if (value := stored.get(key)) is not None and value.size == size
        }
        zeros = {key: np.zeros(size) for key in quantiles}
        return cls(dict(quantiles), dict(zeros), {key: np.zeros(size) for key in zeros})

    def add(self, values: Floats) -> None:
        """Count frames [frames, size]."""
        for key, quantile in self.quantiles.items():
            self.below[key] = self.below[key] + (values < quantile).sum(axis=0)
            self.up_to[key] = self.up_to[key] + (values <= quantile).sum(axis=0)


@dataclass(slots=True)
class _NotFinite:
    nan: int = 0
    infinite: int = 0
    episodes: int = 0
    last_position: int = -1
    first: str = ""


class ValueCheck:
    """Looks at every number of the dataset once.

    Args:
        contents: the dataset.
        findings: gains what is odd, when `finish` is called.
        stored: the statistics of the whole dataset as they are stored.
    """

    def __init__(self, contents: Contents, findings: Findings, stored: Statistics) -> None:
        self._contents = contents
        self._findings = findings
        self.features: Features = contents.columns
        self.total: dict[str, Moments] = {}
        """Of the whole dataset, by feature."""
        self.episode: dict[str, Moments] = {}
        """Of the episode that is being read, by feature."""
        self.shares = {
            name: Shares.of(stored.get(name, {}), feature.size)
            for name, feature in self.features.items()
            if feature.is_numeric
        }
        self._not_finite: dict[str, _NotFinite] = {}
        self._empty_texts: dict[str, int] = {}

    def take(self, piece: Piece, arrays: Arrays) -> None:
        """Look at some rows; `episode` then holds those of their episode so far."""
        if piece.offset == 0:
            self.episode = {}
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":
                self._empty_texts[name] = self._empty_texts.get(name, 0) + int((array == "").sum())
                continue
            values = array.reshape(len(array), -1).astype(np.float64)
            if array.dtype.kind == "f":
                self._look_for_not_finite(name, piece, values)
            moments = Moments.of(values)
            if name in self.episode:
                self.episode[name].add(moments)
            else:
                self.episode[name] = moments
            self.shares[name].add(values)
        if piece.is_last:
            self._end_episode()

    def finish(self) -> None:
        """Report what was seen in the whole dataset."""
        for name, seen in self._not_finite.items():
            self._findings.warning(
                "not-finite",
                f"{seen.nan:,} NaN and {seen.infinite:,} infinite values in {seen.episodes:,} "
                f"episodes, the first in {seen.first}",
                column=name,
            )
        for name, count in self._empty_texts.items():
            if count:
                self._findings.note("text", f"{count:,} texts are empty", column=name)
        for name, moments in self.total.items():
            if name not in names.BOOKKEEPING and moments.count > 1:
                self._report_constant(name, moments)

    def _end_episode(self) -> None:
        for name, moments in self.episode.items():
            if name in self.total:
                self.total[name].add(moments)
            else:
                self.total[name] = Moments(
                    moments.count, moments.low, moments.high, moments.mean, moments.squares
                )

    def _look_for_not_finite(self, name: str, piece: Piece, values: Floats) -> None:
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if not len(rows):
            return
        seen = self._not_finite.setdefault(name, _NotFinite())
        if not seen.first:
            index = self._contents.episodes.index[piece.position]
            seen.first = f"episode {index}, frame {piece.offset + int(rows[0])}"
        nan = int(np.isnan(values).sum())
        seen.nan += nan
        seen.infinite += int((~np.isfinite(values)).sum()) - nan
        seen.episodes += piece.position != seen.last_position
        seen.last_position = piece.position

    def _report_constant(self, name: str, moments: Moments) -> None:
        constant = np.flatnonzero(moments.low == moments.high)
        if not len(constant):
            return
        feature = self.features[name]
        if feature.size == 1:
            self._findings.note("constant", f"is always {moments.low[0]:.6g}", column=name)
            return
        named = [f"{_element(feature, i)} = {moments.low[i]:.6g}" for i in constant[:_NAMED]]
        more = "" if len(constant) <= _NAMED else f" and {len(constant) - _NAMED} more"
        message = f"{len(constant)} of {feature.size} elements never change: {', '.join(named)}"
        self._findings.note("constant", message + more, column=name)


def _element(feature: Feature, number: int) -> str:
    if feature.names is not None and len(feature.names) == feature.size:
        return feature.names[number]
    return f"[{number}]"
