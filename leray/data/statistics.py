"""Statistics of features: exact on an array, combined over episodes, stored as LeRobot stores them.

A feature's statistics are a dictionary of arrays, each of the feature's shape ([1] for a scalar,
`count` always [1]): `min`, `max`, `mean`, `std`, `count`, `q01`, `q10`, `q50`, `q90`, `q99`. `min`
and `max` keep the kind of the data (bool, int64 or float64); the others are float64, `count` is
int64.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.errors import DatasetError

FeatureStatistics = dict[str, NDArray[Any]]
Statistics = dict[str, FeatureStatistics]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
KEYS = ("min", "max", "mean", "std", "count", *QUANTILES)


def compute(array: NDArray[Any]) -> FeatureStatistics:
    """Compute the exact statistics of one feature.

    The standard deviation is that of the population. Values are shifted by the first frame before
    summing, so a constant column has a standard deviation of exactly 0 and large offsets do not
    cancel.

    Args:
        array: values [frames, *shape], or [frames] for a scalar; boolean, integer or float; at
            least one frame.

    Raises:
        ValueError: there are no frames, or the values are not numbers.
    """
    if array.ndim == 0 or len(array) == 0 or array.dtype.kind not in "biuf":
        raise ValueError(f"statistics need frames of numbers, not {array.dtype}{list(array.shape)}")
    values = array[:, None] if array.ndim == 1 else array
    exact = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = exact - exact[0]
        offset = shifted.mean(axis=0)
        deviation = np.sqrt(np.square(shifted - offset).mean(axis=0))
        quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "min": _widened(values.min(axis=0)),
        "max": _widened(values.max(axis=0)),
        "mean": exact[0] + offset,
        "std": deviation,
        "count": np.array([len(values)], dtype=np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def fits(entry: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> bool:
    """Tell whether a feature's statistics are complete and of its shape."""
    return all(
        key in entry and entry[key].shape == ((1,) if key == "count" else shape) for key in KEYS
    )


def aggregate(parts: Iterable[Mapping[str, FeatureStatistics]]) -> Statistics:
    """Combine the statistics of several episodes.

    Minimum, maximum, mean, standard deviation and count come out exact. Quantiles cannot: the outer
    ones are the envelope of the episodes (lowest q01 and q10, highest q90 and q99), the median is
    weighted by frame count. A quantile is left out when an episode lacks it, a feature is combined
    over the episodes that have it.

    Raises:
        DatasetError: an episode's entry lacks min, max, mean, std or count, or shapes differ
            between episodes.
    """
    gathered: dict[str, list[FeatureStatistics]] = {}
    for part in parts:
        for name, entry in part.items():
            gathered.setdefault(name, []).append(entry)
    combined = {}
    for name, entries in gathered.items():
        try:
            combined[name] = _combine(entries)
        except KeyError as error:
            raise DatasetError(f"the statistics of feature {name!r} lack {error}") from error
        except OverflowError as error:
            raise DatasetError(f"the counts of feature {name!r} are too large: {error}") from error
        except ValueError as error:
            raise DatasetError(
                f"the statistics of feature {name!r} differ in shape: {error}"
            ) from error
    return combined


def to_json(statistics: Mapping[str, FeatureStatistics]) -> dict[str, dict[str, list[Any]]]:
    """Return statistics as the nested lists of `meta/stats.json`."""
    return {
        name: {key: value.tolist() for key, value in entry.items()}
        for name, entry in statistics.items()
    }


def from_json(content: Any) -> Statistics:
    """Read the object of `meta/stats.json`; unknown keys are ignored, missing ones stay missing.

    Raises:
        DatasetError: it is not an object of objects of number lists.
    """
    try:
        return {
            name: {key: _numbers(entry[key]) for key in KEYS if key in entry}
            for name, entry in content.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"statistics must be an object {{feature: {{min: [...], ...}}}}: {error}"
        ) from error


def _combine(entries: Sequence[FeatureStatistics]) -> FeatureStatistics:
    counts = np.array([entry["count"].reshape(-1)[0] for entry in entries], dtype=np.float64)
    stacked = {
        key: np.stack([entry[key] for entry in entries])
        for key in KEYS
        if key not in QUANTILES or all(key in entry for entry in entries)
    }
    mean = _weighted(stacked["mean"], counts)
    variance = _weighted(np.square(stacked["std"]) + np.square(stacked["mean"] - mean), counts)
    result: FeatureStatistics = {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([counts.sum()], dtype=np.int64),
    }
    for key, fraction in QUANTILES.items():
        if key not in stacked:
            continue
        if fraction == 0.5:
            result[key] = _weighted(stacked[key], counts)
        else:
            result[key] = stacked[key].min(axis=0) if fraction < 0.5 else stacked[key].max(axis=0)
    return result


def _weighted(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the first axis, shifted so that equal values average to themselves exactly."""
    shares = (weights / weights.sum()).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = values[0] + (shares * (values - values[0])).sum(axis=0)
    return result


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    kinds = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
    return values.astype(kinds[values.dtype.kind])


def _numbers(value: Any) -> NDArray[Any]:
    array = np.atleast_1d(np.asarray(value))
    if array.dtype.kind not in "biuf" or not array.size:
        raise ValueError(f"expected numbers, got {value!r}"[:120])
    return array
