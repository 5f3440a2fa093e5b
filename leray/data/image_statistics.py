"""Statistics of images: exact for the frames that are given, from counts of the 256 levels.

LeRobot stores them per channel, shape [channels, 1, 1], with levels divided by 255.
"""

import numpy as np
from numpy.typing import NDArray

from leray.data.statistics import QUANTILES, FeatureStatistics

_LEVELS = 256
_TARGET_SIDE = 150
_LARGE_SIDE = 300
_MIN_SAMPLES, _MAX_SAMPLES, _POWER = 100, 10_000, 0.75


def sampled_frames(length: int) -> NDArray[np.int64]:
    """Return which frames of an episode its image statistics are taken from, as LeRobot does.

    All of a short episode, else length^0.75 frames (at least 100, at most 10,000), evenly spread.
    """
    count = min(max(int(length**_POWER), _MIN_SAMPLES), _MAX_SAMPLES, length)
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class ImageStatistics:
    """Gathers frames of one camera; memory does not grow with their number.

    Args:
        channels: of every frame.
    """

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, _LEVELS), dtype=np.int64)
        self._frames = 0

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Count one frame [height, width, channels]; large ones are thinned out."""
        step = _stride(max(frame.shape[:2]))
        thinned = frame[::step, ::step]
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(thinned[..., channel].reshape(-1), minlength=_LEVELS)
        self._frames += 1

    def result(self) -> FeatureStatistics:
        """Return the statistics of the frames so far, values in [0, 1].

        Raises:
            ValueError: there are none.
        """
        if not self._frames:
            raise ValueError("image statistics need at least one frame")
        levels = np.arange(_LEVELS) / 255.0
        total = self._counts.sum(axis=1)
        mean = self._counts @ levels / total
        deviations = np.square(levels - mean[:, None])
        seen = self._counts > 0
        entry = {
            "min": levels[seen.argmax(axis=1)],
            "max": levels[_LEVELS - 1 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt((self._counts * deviations).sum(axis=1) / total),
        }
        below = np.cumsum(self._counts, axis=1)
        for key, fraction in QUANTILES.items():
            rank = np.ceil(fraction * total)[:, None]
            entry[key] = levels[(below >= rank).argmax(axis=1)]
        result: FeatureStatistics = {key: value[:, None, None] for key, value in entry.items()}
        result["count"] = np.array([self._frames], dtype=np.int64)
        return result


def is_std_possible(entry: FeatureStatistics) -> bool:
    """Tell whether a standard deviation can belong to its quantiles.

    A tenth of the values lies at or below q10 and a tenth at or above q90, so the variance is at
    least (q90 - q10)^2 / 20 (and (q99 - q01)^2 / 200). LeRobot 0.4.0 to 0.5.1 wrote deviations
    close to 0 whatever the images, because squares of uint8 overflowed. A tenth of slack is left
    for quantiles that are themselves estimates.
    """
    for low, high, share in (("q10", "q90", 20.0), ("q01", "q99", 200.0)):
        if low in entry and high in entry:
            least = (entry[high] - entry[low]) / np.sqrt(share)
            if np.any(entry["std"] < 0.9 * least):
                return False
    return True


def _stride(side: int) -> int:
    return 1 if side < _LARGE_SIDE else side // _TARGET_SIDE
