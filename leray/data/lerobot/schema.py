"""The Arrow tables of a v3.0 dataset: frames, episodes and tasks, as LeRobot's files have them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature, Features
from leray.data.statistics import Statistics

_MAX_AXES = 5
"""LeRobot stores arrays of up to five axes."""

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
            return f"feature {name!r} is {feature.dtype}: this writer takes numbers and text only"
        if feature.kind == "language" or (feature.dtype == "string" and feature.shape != (1,)):
            return f"feature {name!r} of dtype {feature.dtype} needs shape [1] and dtype string"
        if len(feature.shape) > _MAX_AXES:
            return f"feature {name!r} has {len(feature.shape)} axes; at most {_MAX_AXES} are stored"
    return None


def frame_schema(features: Features) -> pa.Schema:
    """Return the schema of data files for features that include the bookkeeping columns.

    Scalars are plain columns, vectors fixed-size lists, higher arrays nested lists. The metadata
    key `huggingface` carries the same description for the `datasets` library.
    """
    described = {"info": {"features": {name: _described(f) for name, f in features.items()}}}
    return pa.schema(
        [pa.field(name, _arrow_type(feature)) for name, feature in features.items()],
        metadata={"huggingface": json.dumps(described)},
    )


def frame_table(
    features: Features, schema: pa.Schema, columns: Mapping[str, NDArray[Any]]
) -> pa.Table:
    """Return the frames of one episode as a table; columns are [frames, *frame_shape]."""
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


def _described(feature: Feature) -> dict[str, Any]:
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.size, "_type": "List"}
    kind = f"Array{len(feature.shape)}D"
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": kind}


def _arrow_type(feature: Feature) -> pa.DataType:
    text = feature.dtype == "string"
    kind = pa.string() if text else pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.size)
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def _arrow_array(column: NDArray[Any], feature: Feature) -> pa.Array:
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
