"""What a stream carries: names, dtypes, shapes and bounds, and the check that two sides agree."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leray.errors import DatasetError, FeatureMismatchError

VISUAL_DTYPES = ("image", "video")
"""Frames stored as encoded pictures; as arrays they are uint8."""

_OTHER_DTYPES = ("string", "language")
_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}


@dataclass(frozen=True, slots=True)
class Feature:
    """One named array of a stream, without its batch and time axes.

    Raises:
        ValueError: the dtype is unknown, the shape is not made of positive integers, or a bound has
            the wrong length.
    """

    dtype: str
    """A numpy dtype name (`float32`, `bool`, ...), or `string`, `image`, `video`, `language`."""
    shape: tuple[int, ...]
    """Positive sizes; a scalar is (1,)."""
    names: tuple[str, ...] | None = None
    """Names of the elements of a vector, or of the axes of an image."""
    low: tuple[float, ...] | None = None
    """Lower bound of every element in C order; -inf where there is none."""
    high: tuple[float, ...] | None = None
    """Upper bound of every element in C order; inf where there is none."""

    def __post_init__(self) -> None:
        if self.kind == "":
            raise ValueError(
                f"dtype {self.dtype!r} is unknown; give a boolean, integer or float numpy dtype, "
                f"or one of {', '.join((*VISUAL_DTYPES, *_OTHER_DTYPES))}"
            )
        if not self.shape or not all(type(size) is int and size > 0 for size in self.shape):
            raise ValueError(
                f"shape {list(self.shape)} is invalid; give positive integers, [1] for a scalar"
            )
        for side in ("low", "high"):
            bound = getattr(self, side)
            if bound is not None and len(bound) != self.size:
                raise ValueError(
                    f"{side} has {len(bound)} values; shape {list(self.shape)} needs {self.size}"
                )

    @property
    def kind(self) -> str:
        """`bool`, `int`, `float`, `image`, `string` or `language`; empty for an unknown dtype."""
        if self.dtype in VISUAL_DTYPES:
            return "image"
        if self.dtype in _OTHER_DTYPES:
            return self.dtype
        try:
            return _KINDS.get(np.dtype(self.dtype).kind, "")
        except TypeError:
            return ""

    @property
    def is_visual(self) -> bool:
        """True for `image` and `video`."""
        return self.dtype in VISUAL_DTYPES

    @property
    def is_numeric(self) -> bool:
        """True for boolean, integer and float features: those with arrays and statistics."""
        return self.kind in ("bool", "int", "float")

    @property
    def size(self) -> int:
        """Number of elements of one frame."""
        return math.prod(self.shape)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame in an array: `shape`, but () for a scalar."""
        return () if self.shape == (1,) else self.shape

    @property
    def is_channels_first(self) -> bool:
        """Whether the first of the three axes of a visual feature is its channels.

        The axis names decide; without them, the first axis is taken for the channels when it has 1,
        3 or 4 entries.
        """
        if self.names is not None and len(self.names) == 3:
            return not self.names[2].startswith("channel")
        return self.shape[0] in (1, 3, 4)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a visual feature, whichever axis order it declares.

        Raises:
            ValueError: the feature does not have three axes.
        """
        if len(self.shape) != 3:
            raise ValueError(
                f"shape {list(self.shape)} is not that of an image: it needs three axes"
            )
        first, second, third = self.shape
        return (second, third, first) if self.is_channels_first else (first, second, third)


class Features(Mapping[str, Feature]):
    """An immutable mapping from feature names to features.

    Example:
        >>> features = Features({"action": Feature("float32", (2,), ("x", "y"))})
        >>> features["action"].shape
        (2,)

    Raises:
        ValueError: a name is empty or holds a `/`, which dataset files reserve.
    """

    __slots__ = ("_features",)

    def __init__(self, features: Mapping[str, Feature]) -> None:
        for name in features:
            if not name or "/" in name:
                raise ValueError(
                    f"feature name {name!r} is invalid: it must not be empty or contain '/'"
                )
        self._features = dict(features)

    def __getitem__(self, name: str) -> Feature:
        return self._features[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def __repr__(self) -> str:
        parts = (f"{name}: {f.dtype}{list(f.shape)}" for name, f in self.items())
        return f"Features({', '.join(parts)})"

    @classmethod
    def from_info(cls, entries: Any) -> "Features":
        """Read the `features` object of a LeRobot `info.json`.

        Args:
            entries: `{name: {"dtype", "shape", "names"}}`; further keys are ignored. `names` may be
                a list, a mapping of lists (`{"motors": [...]}`), a mapping of positions
                (`{"delta_x": 0}`), null or absent.

        Raises:
            DatasetError: an entry is malformed.
        """
        if not isinstance(entries, Mapping):
            raise DatasetError(f"'features' must be an object, not {type(entries).__name__}")
        features = {}
        for name, entry in entries.items():
            try:
                features[name] = _feature_from_info(entry)
            except (KeyError, TypeError, ValueError) as error:
                reason = f"key {error} is missing" if isinstance(error, KeyError) else error
                raise DatasetError(f"feature {name!r} is malformed: {reason}") from error
        try:
            return cls(features)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def to_info(self) -> dict[str, dict[str, Any]]:
        """Return the `features` object; `low` and `high` appear where set (null: no bound)."""
        return {name: _feature_to_info(feature) for name, feature in self.items()}

    def select(self, keys: Iterable[str]) -> "Features":
        """Return the named features, in the order asked for.

        Raises:
            FeatureMismatchError: a name is not there.
        """
        wanted = list(keys)
        if missing := [key for key in wanted if key not in self]:
            raise FeatureMismatchError(
                f"no feature {', '.join(map(repr, missing))}; "
                f"there are: {', '.join(self) or 'none'}"
            )
        return Features({key: self[key] for key in wanted})

    def numpy_dtype(self, key: str) -> np.dtype[Any]:
        """Return the dtype of a feature's arrays: uint8 for images, StringDType for text."""
        feature = self[key]
        if feature.is_visual:
            return np.dtype(np.uint8)
        return np.dtype(feature.dtype) if feature.is_numeric else np.dtypes.StringDType()


def check_compatible(
    left: Features,
    right: Features,
    *,
    left_name: str,
    right_name: str,
    keys: Iterable[str] | None = None,
) -> None:
    """Check that two sides of a stream agree on names, shapes and kinds of dtype.

    float32 and float64 are one kind; images may have their channels first or last.

    Args:
        left: features of one side.
        right: features of the other side.
        left_name: what the error calls the left side, such as "dataset lerobot/pusht".
        right_name: what the error calls the right side.
        keys: the features to compare; all of both sides when None.

    Raises:
        FeatureMismatchError: they differ; one line names both sides and every differing feature.
    """
    wanted = list(dict.fromkeys([*left, *right] if keys is None else keys))
    differences = []
    for key in wanted:
        absent = [
            name for name, side in ((left_name, left), (right_name, right)) if key not in side
        ]
        if absent:
            differences.append(f"{key} (missing in {' and '.join(absent)})")
        elif difference := _difference(left[key], right[key]):
            differences.append(f"{key} ({difference})")
    if differences:
        raise FeatureMismatchError(
            f"{left_name} and {right_name} do not fit together: {'; '.join(differences)}"
        )


def _difference(left: Feature, right: Feature) -> str:
    if left.kind != right.kind:
        return f"{left.dtype} against {right.dtype}"
    if left.is_visual and len(left.shape) == len(right.shape) == 3:
        same = left.image_shape == right.image_shape
    else:
        same = left.shape == right.shape
    return "" if same else f"shape {list(left.shape)} against {list(right.shape)}"


def _feature_from_info(entry: Any) -> Feature:
    if not isinstance(entry, Mapping):
        raise TypeError(f"expected an object with dtype and shape, not {entry!r}")
    if not isinstance(entry["dtype"], str) or not isinstance(entry["shape"], list | tuple):
        raise TypeError("dtype must be a string and shape a list of integers")
    return Feature(
        dtype=entry["dtype"],
        shape=tuple(entry["shape"]) or (1,),
        names=_names_from_info(entry.get("names")),
        low=_bound_from_info(entry.get("low"), -math.inf),
        high=_bound_from_info(entry.get("high"), math.inf),
    )


def _feature_to_info(feature: Feature) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "names": None if feature.names is None else list(feature.names),
    }
    for side in ("low", "high"):
        bound = getattr(feature, side)
        if bound is not None:
            entry[side] = [value if math.isfinite(value) else None for value in bound]
    return entry


def _names_from_info(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, Mapping):
        if all(isinstance(value, int) for value in names.values()):
            return tuple(sorted(names, key=lambda name: int(names[name])))
        names = list(names.values())
    if not isinstance(names, list | tuple):
        raise TypeError(f"names must be a list, an object or null, not {names!r}")
    flat: list[str] = []
    for name in names:
        flat.extend(map(str, name) if isinstance(name, list | tuple) else [str(name)])
    return tuple(flat)


def _bound_from_info(bound: Any, unbounded: float) -> tuple[float, ...] | None:
    if bound is None:
        return None
    return tuple(unbounded if value is None else float(value) for value in bound)
