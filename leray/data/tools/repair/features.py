"""`info.json`: features as they exist, what the cameras' files are like, counters and splits."""

import copy
import math
from typing import Any

import numpy as np
import pyarrow as pa

from leray.data.hub.local import RECORD
from leray.data.lerobot import layout
from leray.data.lerobot.parquet import open_parquet
from leray.data.lerobot.schema import BOOKKEEPING
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.metadata import expected_splits, found_totals
from leray.data.tools.check.tables import stored_shape
from leray.data.tools.check.videos import declared_info
from leray.data.tools.repair.workshop import Workshop
from leray.data.video.probe import video_info
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError


def mend_features(contents: Contents, workshop: Workshop, *, trusts_fps: bool) -> None:
    """Make the declared features those that exist, with the shapes that they have.

    Args:
        contents: the dataset.
        workshop: changes files.
        trusts_fps: whether `info.json` is known to state the right frame rate.
    """
    info = copy.deepcopy(contents.info)
    features: dict[str, Any] = info["features"]
    schemas = _schemas(contents)
    lines: list[str] = []
    _drop_absent(contents, features, schemas, lines, workshop)
    for name, expected in BOOKKEEPING.items():
        if name not in features and schemas and all(name in schema.names for schema in schemas):
            dtype = np.dtype(schemas[0].field(name).type.to_pandas_dtype())
            if dtype.kind != np.dtype(expected.dtype).kind:
                continue
            features[name] = {"dtype": dtype.name, "shape": [1], "names": None}
            lines.append(f"{name} is declared")
    for name, feature in contents.columns.items():
        shapes = {stored_shape(s.field(name).type) for s in schemas if name in s.names}
        found = shapes.pop() if len(shapes) == 1 else None
        if feature.is_numeric and found is not None and math.prod(found) != feature.size:
            features[name]["shape"] = list(found)
            lines.append(f"shape of {name} is {list(found)}, it was {list(feature.shape)}")
    for camera in contents.cameras:
        if camera in contents.episodes.videos and trusts_fps:
            _mend_camera(contents, camera, features[camera], lines, workshop)
    if lines:
        workshop.write_json(layout.INFO, info)
        for line in lines:
            workshop.tell(f"{layout.INFO}: {line}")


def mend_counters(contents: Contents, workshop: Workshop) -> None:
    """Correct the counters, the splits and the form of the frame rate."""
    info = copy.deepcopy(contents.info)
    lines = []
    for name, count in found_totals(contents).items():
        if type(info.get(name)) is not int or info[name] != count:
            lines.append(f"{name} is {count}, it was {info.get(name)!r}")
            info[name] = count
    splits = expected_splits(contents)
    if splits is None:
        workshop.give_up(f"{layout.INFO}: which episodes each split holds is known to its author")
    elif splits != info.get("splits"):
        lines.append(f"splits are {splits}, they were {info.get('splits')!r}")
        info["splits"] = splits
    if type(info["fps"]) is not int and float(info["fps"]).is_integer():
        info["fps"] = int(info["fps"])
        lines.append(f"fps is written as {info['fps']}")
    if lines:
        workshop.write_json(layout.INFO, info)
        for line in lines:
            workshop.tell(f"{layout.INFO}: {line}")


def _schemas(contents: Contents) -> list[pa.Schema]:
    schemas = []
    for name in contents.episodes.files:
        try:
            with open_parquet(contents.root / name) as file:
                schemas.append(file.schema_arrow)
        except DatasetError:  # reported by the check; the others tell enough
            continue
    return schemas


def _drop_absent(
    contents: Contents,
    features: dict[str, Any],
    schemas: list[pa.Schema],
    lines: list[str],
    workshop: Workshop,
) -> None:
    absent = [
        name
        for name in contents.declared
        if name not in contents.features
        and name not in BOOKKEEPING
        and not any(name in schema.names for schema in schemas)
    ]
    if absent and (contents.root / RECORD).is_file():
        workshop.give_up(f"{', '.join(absent)}: this copy was pulled, perhaps without their files")
        return
    for name in absent:
        del features[name]
        lines.append(f"{name} is not declared any more: it has no data")


def _mend_camera(
    contents: Contents, camera: str, entry: dict[str, Any], lines: list[str], workshop: Workshop
) -> None:
    """Take shape and `info` of a camera from its files, if they agree."""
    sizes, first = set(), None
    for name in contents.episodes.videos[camera].files:
        try:
            with VideoReader(contents.root / name, name=name) as video:
                sizes.add((video.height, video.width))
                first = first or contents.root / name
        except DatasetError:  # reported by the check; the others tell enough
            continue
    if len(sizes) != 1 or first is None:
        workshop.give_up(f"{camera}: its files have different sizes, or none can be opened")
        return
    height, width = sizes.pop()
    feature = contents.features[camera]
    shape = (height, width, 3)
    if len(feature.shape) == 3 and feature.image_shape != shape:
        entry["shape"] = [3, height, width] if feature.is_channels_first else [*shape]
        lines.append(f"shape of {camera} is {entry['shape']}, it was {list(feature.shape)}")
    stated = declared_info(contents.info, camera)
    fps = int(contents.fps) if contents.fps.is_integer() else contents.fps
    facts = video_info(first, fps)  # type: ignore[arg-type]
    if stated is None or any(stated[key] != facts[key] for key in stated.keys() & facts.keys()):
        key = "video_info" if stated is not None and not entry.get("info") else "info"
        entry[key] = {**(stated or {}), **facts}
        lines.append(f"{key} of {camera} is read from its files")
