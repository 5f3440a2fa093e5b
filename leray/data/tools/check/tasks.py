"""The table of tasks: order, gaps, repeats, and whether LeRobot finds the texts in it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from leray.data.lerobot.metadata import TASK_COLUMNS
from leray.data.lerobot.parquet import damage_reported, open_parquet
from leray.data.tools.check.contents import Contents, task_file
from leray.data.tools.check.findings import Findings


def check_tasks(contents: Contents, findings: Findings) -> None:
    """Check the stored tasks by themselves; `rows` compares them with the frames."""
    rows, file = contents.task_rows, task_file(contents.version)
    if rows is None:
        return
    indices = [index for index, _ in rows]
    if sorted(indices) != list(range(len(rows))):
        message = f"task_index must run from 0 to {len(rows) - 1} without gaps, it has {indices}"
        findings.error("tasks", message[:300], file=file, repairable=True, blocks=True)
    elif indices != sorted(indices):
        message = "rows are not in the order of task_index"
        if contents.is_v3:  # texts are looked up by position
            findings.error("tasks", message, file=file, repairable=True)
        else:
            findings.note("tasks", message, file=file, repairable=True)
    _check_texts(rows, file, findings)
    if contents.is_v3 and not is_indexed(contents.root / file):
        message = "the text is no pandas index: LeRobot finds no task in it"
        findings.error("tasks", message, file=file, repairable=True)


def _check_texts(rows: list[tuple[int, Any]], file: str, findings: Findings) -> None:
    for index, text in rows:
        if not isinstance(text, str):
            findings.error("tasks", f"task {index} is {text!r}, not a text"[:300], file=file)
        elif not text.strip():
            findings.warning("tasks", f"task {index} is empty", file=file)
    for text, count in Counter(str(text) for _, text in rows).items():
        if count > 1:
            findings.warning("tasks", f"{text!r} stands there {count} times", file=file)


def is_indexed(path: Path) -> bool:
    """Tell whether pandas makes the text column of a tasks table its index, as LeRobot needs."""
    with damage_reported(path), open_parquet(path) as file:
        schema: pa.Schema = file.schema_arrow
    try:
        described = json.loads((schema.metadata or {})[b"pandas"])
        columns = described["index_columns"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    return isinstance(columns, list) and len(columns) == 1 and columns[0] in TASK_COLUMNS
