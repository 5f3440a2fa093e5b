"""The Arrow tables of a v3.0 dataset: frames, episodes and tasks, as LeRobot's files have them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature, Features
from leray.data.statistics import Statistics

_MAX_AXES = 5
"""LeRobot stores arrays of up to five axes."""

_CHANNELS = {"image": (1, 3, 4), "video": (3,)}
_AXES = ("height", "width", "channels")
_CHANNELS_FIRST = ("channels", "height", "width")

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How an encoded picture is stored."""

BOOKKEEPING = Features(
    {
        name: Feature("float32" if name == names.TIMESTAMP else "int64", (1,))
        for name in names.BOOKKEEPING
    }
)
"""The columns that the writer adds to every frame."""


def check_writable(features: Features) -> str | None:
    """Return why the features cannot be written, naming the first offender; None when they can."""
    if not features:
        return "there is no feature to write; give at least one"
    for name, feature in features.items():
        if name in BOOKKEEPING:
            return f"feature {name!r} is written by itself; leave it out"
        if feature.is_visual:
            if reason := _unwritable_pictures(name, feature):
                return f"feature {name!r} {reason}"
        elif feature.kind == "language" or (feature.dtype == "string" and feature.shape != (1,)):
            return f"feature {name!r} of dtype {feature.dtype} needs shape [1] and dtype string"
        elif len(feature.shape) > _MAX_AXES:
            return f"feature {name!r} has {len(feature.shape)} axes; at most {_MAX_AXES} are stored"
    return None


def with_axis_names(features: Features) -> Features:
    """Return the features, visual ones with the names of their axes, which LeRobot insists on."""
    return Features(
        {
            name: replace(feature, names=_CHANNELS_FIRST if feature.is_channels_first else _AXES)
            if feature.is_visual and feature.names is None
            else feature
            for name, feature in features.items()
        }
    )


def frame_schema(features: Features) -> pa.Schema:
    """Return the schema of data files for features that include the bookkeeping columns.

    Scalars are plain columns, vectors fixed-size lists, higher arrays nested lists, images encoded
    files; videos have no column. The metadata key `huggingface` carries the same description for
    the `datasets` library.
    """
    stored = {name: feature for name, feature in features.items() if feature.dtype != "video"}
    described = {"info": {"features": {name: _described(f) for name, f in stored.items()}}}
    return pa.schema(
        [pa.field(name, _arrow_type(feature)) for name, feature in stored.items()],
        metadata={"huggingface": json.dumps(described)},
    )


def frame_table(
    features: Features, schema: pa.Schema, columns: Mapping[str, NDArray[Any] | pa.ChunkedArray]
) -> pa.Table:
    """Return the frames of one episode as a table.

    Args:
        features: those of the schema.
        schema: as `frame_schema` makes it.
        columns: arrays [frames, *frame_shape]; of images the encoded files.
    """
    arrays = [_arrow_array(columns[name], features[name]) for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def episode_table(
    index: int, tasks: Sequence[str], first_frame: int, length: int, stats: Statistics
) -> pa.Table:
    """Return the one-row table of an episode's metadata, but for where it lies."""
    columns: dict[str, pa.Array] = {
        "episode_index": pa.array([index], pa.int64()),
        "tasks": pa.array([list(tasks)], pa.list_(pa.string())),
        "length": pa.array([length], pa.int64()),
        "dataset_from_index": pa.array([first_frame], pa.int64()),
        "dataset_to_index": pa.array([first_frame + length], pa.int64()),
    }
    for name, entry in stats.items():
        for key, value in entry.items():
            kind = pa.from_numpy_dtype(value.dtype)
            for _ in value.shape:
                kind = pa.list_(kind)
            columns[f"stats/{name}/{key}"] = pa.array([value.tolist()], kind)
    return pa.table(columns)


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Return the task table; its pandas metadata makes the column `task` the frame's index."""
    described = [
        {"name": names.TASK_INDEX, "pandas_type": "int64", "numpy_type": "int64"},
        {"name": names.TASK, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": [names.TASK],
        "column_indexes": [],
        "columns": [
            {**column, "field_name": column["name"], "metadata": None} for column in described
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    schema = pa.schema(
        [(names.TASK_INDEX, pa.int64()), (names.TASK, pa.string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    return pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks)], schema=schema)


def _unwritable_pictures(name: str, feature: Feature) -> str:
    if name in (".", "..") or "\0" in name:
        return "cannot be the name of a folder; rename it"
    if len(feature.shape) != 3:
        return f"has shape {list(feature.shape)}; pictures need height, width and channels"
    channels, allowed = feature.image_shape[2], _CHANNELS[feature.dtype]
    if channels not in allowed:
        return (
            f"has {channels} channels; {feature.dtype} features have "
            f"{' or '.join(map(str, allowed))}: name its axes {', '.join(_AXES)} in their order"
        )
    return ""


def _described(feature: Feature) -> dict[str, Any]:
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.size, "_type": "List"}
    kind = f"Array{len(feature.shape)}D"
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": kind}


def _arrow_type(feature: Feature) -> pa.DataType:
    if feature.dtype == "image":
        return IMAGE_TYPE
    text = feature.dtype == "string"
    kind = pa.string() if text else pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.size)
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def _arrow_array(column: Any, feature: Feature) -> pa.Array | pa.ChunkedArray:
    if feature.dtype == "image":
        return column
    if feature.dtype == "string":
        return pa.array(column.tolist(), pa.string())
    array = pa.array(np.ascontiguousarray(column).reshape(-1))
    if feature.shape == (1,):
        return array
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, feature.size)
    for size in reversed(feature.shape):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(offsets, array)
    return array
