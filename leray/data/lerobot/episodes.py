"""The table of episodes: how long each one is, and which rows of which file hold it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data.lerobot import layout
from leray.data.lerobot.parquet import read_table
from leray.errors import DatasetError

_V3_COLUMNS = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index")


@dataclass(frozen=True, slots=True)
class EpisodeTable:
    """All episodes of a dataset, ordered by episode index; arrays are int64 [episodes]."""

    index: NDArray[np.int64]
    """The number of the episode in the dataset."""
    length: NDArray[np.int64]
    """Frames."""
    file: NDArray[np.int64]
    """Position in `files` of the file that holds it."""
    start: NDArray[np.int64]
    """Row of its first frame in that file."""
    files: tuple[str, ...]
    """Data files, relative to the dataset's folder."""
    tasks: tuple[tuple[str, ...], ...]
    """The distinct task strings of each episode."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def frames(self) -> int:
        """Total number of frames."""
        return int(self.length.sum())

    def rows_of(self, file: int) -> int:
        """Return how many rows of a file belong to episodes."""
        return int(self.length[self.file == file].sum())


def read_episodes(root: Path, info: dict[str, Any], findings: list[str]) -> EpisodeTable:
    """Read the episodes of a dataset of any supported version.

    Args:
        root: the dataset's folder.
        info: content of `info.json`, with a supported `codebase_version`.
        findings: gains one line per harmless oddity.

    Raises:
        DatasetError: the metadata is missing, damaged or contradicts itself.
    """
    template = layout.PathTemplate(info.get("data_path"), "data_path")
    if info["codebase_version"] == "v3.0":
        return _from_parquet(root, template, findings)
    return _from_json_lines(root, info, template, findings)


def episodes_files(root: Path) -> list[Path]:
    """Return the v3.0 episode metadata files, in order."""
    return sorted((root / "meta" / "episodes").glob("*/*.parquet"))


def _from_json_lines(
    root: Path, info: dict[str, Any], template: layout.PathTemplate, findings: list[str]
) -> EpisodeTable:
    path = root / layout.EPISODES_JSONL
    if not path.is_file():
        raise DatasetError(f"{path} is missing: the dataset's episodes are unknown; copy it again")
    chunks_size = info.get("chunks_size", layout.CHUNKS_SIZE)
    if type(chunks_size) is not int or chunks_size < 1:
        raise DatasetError(
            f"{layout.INFO}: chunks_size must be a positive integer, not {chunks_size!r}"
        )
    rows = layout.read_json_lines(path)
    try:
        columns = {
            "episode_index": np.array([int(row["episode_index"]) for row in rows], dtype=np.int64),
            "length": np.array([int(row["length"]) for row in rows], dtype=np.int64),
        }
        tasks = [tuple(map(str, row.get("tasks") or ())) for row in rows]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path}: every line needs an integer episode_index and length"
        ) from error
    paths = [
        template.fill(episode_index=int(index), episode_chunk=int(index) // chunks_size)
        for index in columns["episode_index"]
    ]
    return _build(path, columns, paths, tasks, findings)


def _from_parquet(root: Path, template: layout.PathTemplate, findings: list[str]) -> EpisodeTable:
    folder = root / "meta" / "episodes"
    files = episodes_files(root)
    if not files:
        findings.append(f"{folder.relative_to(root)} holds no file: the dataset has no episodes")
        return _build(folder, {"episode_index": _EMPTY, "length": _EMPTY}, [], [], findings)
    table = pa.concat_tables(
        [read_table(file, _V3_COLUMNS) for file in files], promote_options="default"
    )
    if missing := [name for name in _V3_COLUMNS if name not in table.column_names]:
        raise DatasetError(f"{folder} lacks the column {missing[0]!r}; copy the dataset again")
    try:
        numbers = {
            name: table[name].to_numpy().astype(np.int64, casting="safe")
            for name in _V3_COLUMNS
            if name != "tasks"
        }
        tasks = [tuple(map(str, row or ())) for row in table["tasks"].to_pylist()]
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{folder}: {', '.join(_V3_COLUMNS)} must not have gaps: {error}"
        ) from error
    paths = [
        template.fill(chunk_index=int(chunk), file_index=int(file))
        for chunk, file in zip(numbers["data/chunk_index"], numbers["data/file_index"], strict=True)
    ]
    return _build(folder, numbers, paths, tasks, findings)


_EMPTY = np.zeros(0, dtype=np.int64)


def _build(
    source: Path,
    columns: dict[str, NDArray[np.int64]],
    paths: list[str],
    tasks: list[tuple[str, ...]],
    findings: list[str],
) -> EpisodeTable:
    """Order the rows by episode, drop repeated ones, and find each one's first row."""
    index, first = np.unique(columns["episode_index"], return_index=True)
    if len(index) < len(paths):
        findings.append(
            f"{source.name} lists {len(paths) - len(index)} episodes twice; the first entry counts"
        )
    length = columns["length"][first]
    if len(index) and (length.min() < 1 or index[0] < 0):
        raise DatasetError(f"{source}: episode indices must be >= 0 and lengths >= 1")
    if len(index) and index[-1] != len(index) - 1:
        findings.append(
            f"episode indices have gaps: {len(index)} episodes, the last is {index[-1]}"
        )
    files = tuple(dict.fromkeys(paths[row] for row in first))
    number = {path: position for position, path in enumerate(files)}
    used: Counter[str] = Counter()
    start = np.zeros(len(index), dtype=np.int64)
    for position, row in enumerate(first):
        start[position] = used[paths[row]]
        used[paths[row]] += int(length[position])
    return EpisodeTable(
        index=index,
        length=length,
        file=np.array([number[paths[row]] for row in first], dtype=np.int64),
        start=start,
        files=files,
        tasks=tuple(tasks[row] for row in first),
    )
