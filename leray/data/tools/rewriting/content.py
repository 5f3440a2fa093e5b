"""What a new dataset declares: the features, rate and tasks on which its sources agree."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leray.data.features import Feature, Features, check_compatible
from leray.data.tools.rewriting.source import Source
from leray.errors import DatasetError, FeatureMismatchError

_RATE_NOTE = "LeRobot v3.0 stores whole frames per second"


@dataclass(frozen=True)
class Content:
    """The declarations of a new dataset."""

    fps: int
    robot_type: str | None
    features: Features
    """Without the bookkeeping columns."""
    entries: dict[str, dict[str, Any]]
    """What `info.json` says about each of them, kept from the first source."""
    tasks: list[str]
    """Task strings by task index."""

    @property
    def cameras(self) -> list[str]:
        """Names of the features that are pictures."""
        return [name for name, feature in self.features.items() if feature.is_visual]

    @property
    def videos(self) -> list[str]:
        """Names of the features that lie in video files."""
        return [name for name, feature in self.features.items() if feature.dtype == "video"]


def agree(sources: Sequence[Source], without: Collection[str] = ()) -> Content:
    """Find what the sources have in common, which must be everything.

    Numbers of one kind but different precision get the higher one.

    Args:
        sources: at least one.
        without: names of features to leave out.

    Raises:
        DatasetError: frame rates differ or are not whole, or no feature is left.
        FeatureMismatchError: features differ; one line names both sides and the differences.
    """
    first = sources[0].metadata
    for source in sources[1:]:
        _check_agreement(sources[0], source)
    if first.fps != int(first.fps):
        raise DatasetError(f"{first.root} has {first.fps} frames per second; {_RATE_NOTE}")
    features = Features(
        {
            name: _joined(name, feature, sources)
            for name, feature in first.features.items()
            if name not in without
        }
    )
    if not features:
        raise DatasetError(f"{first.root}: no feature would be left; keep at least one")
    declared = first.info["features"]
    return Content(
        fps=int(first.fps),
        robot_type=first.robot_type,
        features=features,
        entries={
            name: {**declared[name], **entry, "names": declared[name].get("names", entry["names"])}
            for name, entry in features.to_info().items()
        },
        tasks=list(dict.fromkeys(task for source in sources for task in source.tasks())),
    )


def _check_agreement(left: Source, right: Source) -> None:
    one, other = left.metadata, right.metadata
    if one.fps != other.fps:
        raise DatasetError(
            f"{one.root} has {one.fps:g} frames per second, {other.root} has {other.fps:g}; "
            "datasets of one rate can be merged"
        )
    names = (str(one.root), str(other.root))
    check_compatible(one.features, other.features, left_name=names[0], right_name=names[1])
    differences = [
        f"{name} ({difference})"
        for name, feature in one.features.items()
        if (difference := _difference(feature, other.features[name]))
    ]
    if differences:
        raise FeatureMismatchError(
            f"{names[0]} and {names[1]} do not fit together: {'; '.join(differences)}"
        )


def _difference(left: Feature, right: Feature) -> str:
    """Say how two features of one kind and shape differ in a way that forbids one column."""
    if left.is_visual:
        return "" if left.dtype == right.dtype else f"{left.dtype} against {right.dtype}"
    if None not in (left.names, right.names) and left.names != right.names:
        return f"names {list(left.names or ())} against {list(right.names or ())}"
    return ""


def _joined(name: str, feature: Feature, sources: Sequence[Source]) -> Feature:
    if not feature.is_numeric:
        return feature
    dtypes = [np.dtype(source.metadata.features[name].dtype) for source in sources]
    return replace(feature, dtype=str(np.result_type(*dtypes)))
