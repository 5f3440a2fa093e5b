"""Scalar columns of a data file, whole, whatever they are declared as."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from leray.data.lerobot.parquet import damage_reported, read_table


def read_scalars(path: Path, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return those of the columns that exist and hold one number per row, in their stored dtype.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    table = read_table(path, columns)
    arrays = {}
    with damage_reported(path):
        for name in table.column_names:
            column = table[name]
            is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
            if is_number and not column.null_count:
                arrays[name] = column.to_numpy()
    return arrays
