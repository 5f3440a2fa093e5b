"""Parquet files as numpy arrays: damage becomes one clear error, vectors never become objects."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data.features import Feature
from leray.data.lerobot.folder import is_local, open_binary
from leray.errors import DatasetError

_BATCH_ROWS = 65536


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn what Arrow raises on a damaged file into a `DatasetError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing; copy the dataset again") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path} is damaged or not a finished parquet file ({reason}); copy or record it again"
        ) from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file; pages that carry a checksum are verified when read.

    Raises:
        DatasetError: the file is missing, truncated, not parquet, or repeats a column name.
    """
    with damage_reported(path):
        file = (
            pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            if is_local(path)
            else pq.ParquetFile(open_binary(path), page_checksum_verification=True)
        )
    columns = file.schema_arrow.names
    if len(set(columns)) < len(columns):
        repeated = next(name for name in columns if columns.count(name) > 1)
        raise DatasetError(f"{path} has several columns named {repeated!r}; write it again")
    return file


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole small table, or the named columns of it that exist.

    Raises:
        DatasetError: the file is missing, truncated or damaged.
    """
    with damage_reported(path), open_parquet(path) as file:
        present = file.schema_arrow.names
        wanted = present if columns is None else [name for name in columns if name in present]
        # A dotted name also selects columns that it is a prefix of; `select` drops those.
        return file.read(columns=wanted).select(wanted)


def iterate_rows(
    file: pq.ParquetFile,
    columns: Sequence[str],
    runs: NDArray[np.int64],
    *,
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of rows that cover the wanted ranges, skipping other row groups.

    Args:
        file: an open parquet file.
        columns: columns to decode.
        runs: half-open row ranges [runs, 2], ascending and disjoint.
        batch_rows: rows of a batch, at most.

    Yields:
        The number of the batch's first row in the file, and the batch.

    Raises:
        pyarrow.ArrowException: a column is missing, or the file is damaged.
    """
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise pa.ArrowKeyError(f"column {missing[0]!r} is missing")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    # A group is wanted when more runs start before its end than end before its start.
    started = np.searchsorted(runs[:, 0], edges[1:], side="left")
    ended = np.searchsorted(runs[:, 1], edges[:-1], side="right")
    wanted = np.flatnonzero((started > ended) & (np.diff(edges) > 0))
    if not wanted.size:
        return
    for span in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
        row = int(edges[span[0]])
        for batch in file.iter_batches(batch_rows, row_groups=span.tolist(), columns=list(columns)):
            yield row, batch
            row += batch.num_rows


def to_numpy(array: pa.Array, feature: Feature) -> NDArray[Any]:
    """Return a column as an array [rows, *frame_shape] of the feature's declared dtype.

    Scalars, lists, fixed-size lists and nested lists are accepted alike. Missing float values
    become NaN.

    Raises:
        ValueError: rows are missing or of another length than declared, or values do not fit the
            declared dtype.
    """
    if not (feature.is_numeric or feature.dtype == "string"):
        raise ValueError(f"it is declared as {feature.dtype}, not as numbers or text")
    rows = len(array)
    values = _leaves(array)
    if len(values) != rows * feature.size:
        found = len(values) // max(rows, 1)
        raise ValueError(f"rows hold {found} values, declared shape is {list(feature.shape)}")
    if values.null_count:
        if not pa.types.is_floating(values.type):
            raise ValueError(f"{values.null_count} values are missing")
        values = pc.fill_null(values, float("nan"))
    dense = _cast(values, feature)
    return dense.reshape(rows, *feature.frame_shape)


def _leaves(array: pa.Array) -> pa.Array:
    """Flatten lists of any depth, insisting that all rows have the same length at every level."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    while pa.types.is_nested(array.type):
        if not hasattr(array.type, "value_type"):
            raise ValueError(f"it is stored as {array.type}")
        if array.null_count:
            raise ValueError(f"{array.null_count} rows are missing")
        if not pa.types.is_fixed_size_list(array.type) and len(array):
            lengths = pc.min_max(pc.list_value_length(array)).as_py()
            if lengths["min"] != lengths["max"]:
                raise ValueError(
                    f"rows differ in length, from {lengths['min']} to {lengths['max']} values"
                )
        array = array.flatten()
    return array


def _cast(values: pa.Array, feature: Feature) -> NDArray[Any]:
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if feature.dtype == "string":
        if not is_text:
            raise ValueError(f"it is stored as {values.type}, declared as text")
        return np.array(values.to_pylist(), dtype=np.dtypes.StringDType())
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is stored as {values.type}, declared as {feature.dtype}")
    declared = np.dtype(feature.dtype)
    with np.errstate(invalid="ignore"):
        cast = array.astype(declared, copy=False)
    if not np.can_cast(array.dtype, declared, "same_kind") and not np.array_equal(cast, array):
        raise ValueError(f"it is stored as {values.type} with values that {declared} cannot hold")
    return cast
