"""Where the parts of a LeRobot dataset lie; its path templates cannot leave its folder."""

import json
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from leray.errors import DatasetError

VERSIONS = ("v2.0", "v2.1", "v3.0")
"""Values of `codebase_version` that can be read; the last one is written."""

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS_JSONL = "meta/tasks.jsonl"
EPISODES_JSONL = "meta/episodes.jsonl"
EPISODES_STATS_JSONL = "meta/episodes_stats.jsonl"
TASKS_PARQUET = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

CHUNKS_SIZE = 1000
"""Files per chunk folder (v3.0)."""
DATA_FILES_SIZE_IN_MB = 100
VIDEO_FILES_SIZE_IN_MB = 200

INTEGER_FIELDS = frozenset({"episode_chunk", "episode_index", "chunk_index", "file_index"})
_LONGEST_NAME, _LONGEST_PATH = 255, 2000
"""Bytes that common filesystems allow, with room for where the dataset lies."""
_DEEPEST = 50
"""Levels of lists and objects in JSON files; statistics of pictures have six."""
_TEXT_FIELDS = frozenset({"video_key"})
_INTEGER_FORMATS = frozenset({"", "d", *(f"0{width}d" for width in range(1, 10))})


class PathTemplate:
    """A `data_path` or `video_path` of `info.json`, checked before it is ever filled.

    Raises:
        DatasetError: the template uses unknown fields or formats, is absolute, or leaves the
            dataset's folder.
    """

    def __init__(self, template: Any, name: str) -> None:
        self._template = template
        self._name = name
        try:
            fields = list(Formatter().parse(template))
        except (TypeError, ValueError) as error:
            raise self._error(str(error)) from error
        for _, field, form, conversion in fields:
            if field is None:
                continue
            known = field in INTEGER_FIELDS and form in _INTEGER_FORMATS
            known = known or (field in _TEXT_FIELDS and not form)
            if not known or conversion:
                raise self._error(f"field {{{field}:{form}}} is not allowed")
        self._check_inside(template)

    def fill(self, **values: int | str) -> str:
        """Return the path relative to the dataset's folder, with forward slashes.

        Raises:
            DatasetError: a field of the template has no value, or the result leaves the folder.
        """
        try:
            path = str(self._template.format(**values))
        except (KeyError, ValueError) as error:
            raise self._error(f"cannot be filled: {error}") from error
        self._check_inside(path)
        return path

    def _check_inside(self, path: str) -> None:
        parts = PurePosixPath(path)
        leaves = parts.is_absolute() or ".." in parts.parts or "://" in path
        if not path or "\0" in path or leaves:
            raise self._error(f"path {path!r} leaves the dataset's folder")
        try:
            longest = max((len(part.encode()) for part in parts.parts), default=0)
        except UnicodeEncodeError as error:
            raise self._error("it is no valid text") from error
        if longest > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH:
            raise self._error("it is longer than file names can be")

    def _error(self, reason: str) -> DatasetError:
        shown = repr(self._template)[:200]
        return DatasetError(f"{INFO}: {self._name} {shown} is invalid: {reason}")


def numbered_path(template: str, number: int, chunks_size: int = CHUNKS_SIZE, **fields: str) -> str:
    """Return the path of the n-th file of a v3.0 series, counted over all chunk folders.

    Args:
        template: a path with the fields `chunk_index` and `file_index`.
        number: of the file, from 0.
        chunks_size: files per chunk folder.
        fields: values of the template's other fields.
    """
    chunk, file = divmod(number, chunks_size)
    return template.format(chunk_index=chunk, file_index=file, **fields)


def parse_json(content: bytes) -> Any:
    """Parse JSON that came with a dataset.

    Raises:
        ValueError: it is not JSON, or nested so deeply that nobody can have meant it.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: it cannot be read, or is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is not readable JSON ({error}); restore the file or copy the dataset again"
        ) from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; empty lines are skipped.

    Raises:
        DatasetError: it cannot be read, or a line is not a JSON object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number} is not a JSON object")
        rows.append(row)
    return rows
