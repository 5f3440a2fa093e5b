"""Checking what is recorded, by frame or by episode, against the declared features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature, Features
from leray.errors import FeatureMismatchError


class FrameBuffer:
    """The frames of the episode being recorded; values are copied, callers may reuse theirs.

    Pictures are checked, but not kept.
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self.clear()

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, frame: Mapping[str, Any], task: str) -> dict[str, NDArray[np.uint8]]:
        """Append one frame: exactly the declared features, each in its exact shape and dtype.

        Returns:
            The frame's pictures [height, width, channels] by feature; views of the given ones.

        Raises:
            FeatureMismatchError: it does not fit; one line names every difference.
        """
        _check_task(task)
        _check_keys(self._features, frame, "frame")
        values, pictures, problems = {}, {}, []
        for name, feature in self._features.items():
            value = _array(frame[name], feature)
            if problem := _misfit(feature, value.dtype, value.shape, frame[name]):
                problems.append(f"{name} ({problem})")
            elif feature.is_visual:
                pictures[name] = _channels_last(value, feature)
            else:
                values[name] = value.copy().reshape(feature.frame_shape)
        _raise_problems("frame", problems)
        for name, value in values.items():
            self._columns[name].append(value)
        self.tasks.append(task)
        return pictures

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the frames as one array per feature [frames, *frame_shape], without pictures."""
        return {name: np.stack(values) for name, values in self._columns.items()}

    def clear(self) -> None:
        """Forget the frames."""
        self._columns: dict[str, list[NDArray[Any]]] = {
            name: [] for name, feature in self._features.items() if not feature.is_visual
        }
        self.tasks: list[str] = []
        """The task of each frame."""


def check_episode(
    features: Features,
    columns: Mapping[str, Any],
    task: str | Sequence[str],
    lengths: Mapping[str, int] | None = None,
) -> dict[str, NDArray[Any]]:
    """Check a whole episode given as arrays [frames, *shape], or [frames] for scalars.

    Args:
        features: what must be given as arrays.
        columns: the arrays.
        task: one for all frames, or one per frame.
        lengths: frames of what is given in other forms, by name.

    Returns:
        The arrays as [frames, *frame_shape], pictures as [frames, height, width, channels]; views
        of the given ones where they were arrays.

    Raises:
        FeatureMismatchError: they do not fit; one line names every difference.
    """
    lengths = dict(lengths or {})
    if isinstance(task, str) or not isinstance(task, Sequence):
        _check_task(task)
    else:
        lengths["task"] = len(task)
        for text in task:
            _check_task(text)
    _check_keys(features, columns, "episode")
    problems = [f"{name} (has no frames)" for name, count in lengths.items() if count < 1]
    arrays = {}
    for name, feature in features.items():
        array = _array(columns[name], feature)
        if problem := _misfit(feature, array.dtype, array.shape[1:], columns[name]):
            problems.append(f"{name} ({problem})")
        elif array.ndim == 0 or len(array) == 0:
            problems.append(f"{name} (has no frames)")
        elif feature.is_visual:
            arrays[name] = _channels_last(array, feature)
        else:
            arrays[name] = array.reshape(len(array), *feature.frame_shape)
    lengths |= {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        problems.append(
            f"lengths differ: {', '.join(f'{n} {count}' for n, count in lengths.items())}"
        )
    _raise_problems("episode", problems)
    return arrays


def _misfit(feature: Feature, dtype: np.dtype[Any], shape: tuple[int, ...], given: Any) -> str:
    """Say how a value differs from its feature; empty when it fits."""
    if feature.dtype == "string":
        texts = given if isinstance(given, list | tuple | np.ndarray) else [given]
        if not all(isinstance(text, str) for text in np.asarray(texts, dtype=object).reshape(-1)):
            return "must be text"
    elif feature.is_visual:
        if dtype != np.uint8:
            return f"dtype {dtype}, pictures are uint8 from 0 to 255: convert them first"
    elif dtype != np.dtype(feature.dtype):
        return f"dtype {dtype}, declared {feature.dtype}"
    if shape not in (feature.shape, feature.frame_shape):
        return f"shape {list(shape)}, declared {list(feature.shape)}"
    return ""


def _array(value: Any, feature: Feature) -> NDArray[Any]:
    """Convert without changing numbers; what is no array becomes one that fits nothing."""
    try:
        return np.asarray(
            value, dtype=np.dtypes.StringDType() if feature.dtype == "string" else None
        )
    except (TypeError, ValueError):
        return np.asarray(None, dtype=object)


def _channels_last(pictures: NDArray[Any], feature: Feature) -> NDArray[Any]:
    return np.moveaxis(pictures, -3, -1) if feature.is_channels_first else pictures


def _check_keys(features: Features, given: Mapping[str, Any], what: str) -> None:
    missing = [f"{name} (missing)" for name in features if name not in given]
    unknown = [f"{name} (not declared)" for name in given if name not in features]
    _raise_problems(what, missing + unknown)


def _check_task(task: str) -> None:
    if not isinstance(task, str):
        raise FeatureMismatchError(f"a task is a text, not {task!r}")


def _raise_problems(what: str, problems: list[str]) -> None:
    if problems:
        raise FeatureMismatchError(
            f"the {what} does not fit the dataset's features: {'; '.join(problems)}"
        )
