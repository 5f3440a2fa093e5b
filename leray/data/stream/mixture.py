"""Several datasets as one source of samples, each with its weight."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Features, check_compatible
from leray.data.stream.samples import DATASET_INDEX, Batch, Samples
from leray.errors import ConfigError, DatasetError


class Mixture:
    """Datasets one after the other under one numbering; one dataset is a mixture too.

    Args:
        parts: the datasets' samples; they must hold the same features after renaming.
        weights: relative shares of the batches, one per dataset; by number of frames when None.

    Raises:
        ConfigError: there is no dataset, or not one weight for each.
        FeatureMismatchError: two datasets differ in a feature.
    """

    def __init__(self, parts: Sequence[Samples], weights: Sequence[float] | None = None) -> None:
        if not parts:
            raise ConfigError("a mixture needs at least one dataset")
        if weights is not None and len(weights) != len(parts):
            raise ConfigError(
                f"{len(weights)} weights were given for {len(parts)} datasets; give one for each"
            )
        for part in parts[1:]:
            check_compatible(
                parts[0].features,
                part.features,
                left_name=f"dataset {parts[0].reader.root}",
                right_name=f"dataset {part.reader.root}",
            )
            _check_windows(parts[0], part)
        self.parts = list(parts)
        self.weights = [float(len(p)) for p in parts] if weights is None else list(weights)
        self.features = _common_features(parts)
        """What a sample holds, but for windows and bookkeeping."""
        tasks = [part.tasks or [""] for part in parts]  # a dataset need not tell its tasks
        self.tasks = list(dict.fromkeys(task for of_part in tasks for task in of_part))
        """The task strings of all datasets; `task_index` of a batch counts in these."""
        self._dtypes = {key: self.features.numpy_dtype(key) for key in self.features}
        self._ends = np.cumsum([len(part) for part in parts])
        self._frames_before = np.cumsum([0, *(part.reader.num_frames for part in parts)])
        number = {task: index for index, task in enumerate(self.tasks)}
        self._task_numbers = [
            np.array([number[task] for task in of_part], dtype=np.int64) for of_part in tasks
        ]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def sample_bytes(self) -> int:
        """Memory of one sample."""
        return self.parts[0].sample_bytes

    @property
    def stats(self) -> statistics.Statistics:
        """Statistics of all datasets together, by stream name, each frame counted once."""
        return statistics.aggregate(part.stats for part in self.parts)

    def gather(self, samples: NDArray[np.int64]) -> Batch:
        """Return samples by number, as `Samples.gather`, with `dataset_index` [B].

        `index` counts the frames of the selected episodes through all datasets.

        Raises:
            DatasetError: a file is missing or damaged.
        """
        part = np.searchsorted(self._ends, samples, side="right")
        batch: Batch = {}
        for number in np.unique(part).tolist():
            here = np.flatnonzero(part == number)
            first = int(self._ends[number]) - len(self.parts[number])
            gathered = self.parts[number].gather(samples[here] - first)
            gathered[names.INDEX] = gathered[names.INDEX] + self._frames_before[number]
            gathered[names.TASK_INDEX] = self._translated(number, gathered[names.TASK_INDEX])
            for key, value in gathered.items():
                dtype = self._dtypes.get(key, value.dtype)
                if len(here) == len(samples):
                    batch[key] = value.astype(dtype, copy=False)
                    continue
                if key not in batch:
                    batch[key] = np.empty((len(samples), *value.shape[1:]), dtype)
                batch[key][here] = value
        batch[DATASET_INDEX] = part.astype(np.int64)
        return batch

    def _translated(self, part: int, tasks: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers, samples = self._task_numbers[part], self.parts[part]
        if not samples.tasks:
            return np.full(len(tasks), numbers[0])
        if tasks.min() < 0 or tasks.max() >= len(numbers):
            raise DatasetError(
                f"{samples.reader.root}: a frame has task_index {tasks.min()} or {tasks.max()}, "
                f"there are 0 to {len(numbers) - 1}; see `leray dataset check`"
            )
        translated: NDArray[np.int64] = numbers[tasks]
        return translated


def _common_features(parts: Sequence[Samples]) -> Features:
    """Return the first dataset's features, in dtypes that hold the values of all."""
    common = {}
    for key, feature in parts[0].features.items():
        if feature.is_numeric:
            dtype = np.result_type(*(part.features[key].dtype for part in parts))
            feature = replace(feature, dtype=dtype.name)
        common[key] = feature
    return Features(common)


def _check_windows(left: Samples, right: Samples) -> None:
    for key in left.features:
        if left.window(key) != right.window(key):
            raise ConfigError(
                f"{key} has a window of {left.window(key)} frames in {left.reader.root} and of "
                f"{right.window(key)} in {right.reader.root}; give both the same"
            )
