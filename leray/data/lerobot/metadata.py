"""Everything a dataset says about itself: `info.json`, tasks, episodes and oddities."""

from dataclasses import dataclass
from pathlib import Path
from sys import float_info
from typing import Any

from leray.data import names
from leray.data.features import Features
from leray.data.lerobot import checks, layout
from leray.data.lerobot.episodes import EpisodeTable, read_episodes
from leray.data.lerobot.parquet import damage_reported, read_table
from leray.errors import DatasetError

TASK_COLUMNS = (names.TASK, "__index_level_0__")
"""Spellings of the text column of `tasks.parquet`."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one dataset folder."""

    root: Path
    info: dict[str, Any]
    """`info.json` as it stands."""
    version: str
    fps: float
    """Frames per second."""
    robot_type: str | None
    features: Features
    """Declared features that can be read, without the bookkeeping columns."""
    bookkeeping: Features
    """Declared bookkeeping columns (`timestamp`, `task_index`, ...) that exist."""
    tasks: list[str]
    """Task strings by task index."""
    episodes: EpisodeTable
    findings: list[str]
    """Oddities that do not prevent reading, one line each."""


def read_metadata(root: Path) -> Metadata:
    """Read and check the metadata of a dataset folder; no data but one parquet footer is read.

    Raises:
        DatasetError: the folder is not a dataset, of an unsupported version, damaged or contradicts
            itself.
    """
    info = read_info(root)
    findings: list[str] = []
    declared = Features.from_info(info.get("features"))
    tasks = _read_tasks(root, info["codebase_version"], findings)
    cameras = [name for name, feature in declared.items() if feature.dtype == "video"]
    episodes = read_episodes(root, info, findings, cameras)
    readable = checks.drop_unreadable(root, info, declared, episodes, findings)
    checks.compare_counters(info, readable, episodes, len(tasks), findings)
    is_bookkeeping = [name for name in readable if name in names.BOOKKEEPING]
    return Metadata(
        root=root,
        info=info,
        version=info["codebase_version"],
        fps=float(info["fps"]),
        robot_type=info.get("robot_type"),
        features=readable.select(name for name in readable if name not in is_bookkeeping),
        bookkeeping=readable.select(is_bookkeeping),
        tasks=tasks,
        episodes=episodes,
        findings=findings,
    )


def read_info(root: Path) -> dict[str, Any]:
    """Read `info.json` and check what everything else rests on: version and frame rate.

    Raises:
        DatasetError: the folder is not a dataset, or `info.json` is damaged or of another version.
    """
    if not root.is_dir():
        raise DatasetError(f"no dataset at {root}: the folder does not exist")
    path = root / layout.INFO
    if not path.is_file():
        raise DatasetError(
            f"{root} is not a LeRobot dataset: it has no {layout.INFO}; "
            "give the folder that holds meta/ and data/ (and videos/ when there are cameras)"
        )
    info = layout.read_json(path)
    if not isinstance(info, dict):
        raise DatasetError(f"{path} must hold a JSON object, not a {type(info).__name__}")
    version = info.get("codebase_version")
    if version not in layout.VERSIONS:
        raise DatasetError(
            f"{root} has codebase_version {version!r}; readable are {', '.join(layout.VERSIONS)}; "
            "convert it with LeRobot's own converter first"
        )
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= float_info.max:
        raise DatasetError(f"{path}: fps must be a positive number, not {fps!r}")
    return info


def _read_tasks(root: Path, version: str, findings: list[str]) -> list[str]:
    name = layout.TASKS_PARQUET if version == "v3.0" else layout.TASKS_JSONL
    path = root / name
    if not path.is_file():
        findings.append(f"{name} is missing: task strings are unknown")
        return []
    rows = read_task_rows(path)
    by_index = dict(rows)
    if sorted(by_index) != list(range(len(rows))):
        raise DatasetError(f"{path}: task_index must run from 0 to {len(rows) - 1} without gaps")
    return [str(by_index[index]) for index in range(len(rows))]


def read_task_rows(path: Path) -> list[tuple[int, Any]]:
    """Return task index and text in stored order, from `tasks.jsonl` or `tasks.parquet`.

    Both spellings of the parquet's text column are accepted: a named pandas index, and an unnamed
    one.

    Raises:
        DatasetError: the file is damaged, or a row lacks an integer index or the text.
    """
    pairs: list[tuple[Any, Any]]
    if path.suffix == ".jsonl":
        rows = layout.read_json_lines(path)
        pairs = [(row.get(names.TASK_INDEX), row.get(names.TASK)) for row in rows]
    else:
        table = read_table(path)
        spelling = next((name for name in TASK_COLUMNS if name in table.column_names), None)
        if spelling is None or names.TASK_INDEX not in table.column_names:
            raise DatasetError(
                f"{path} needs the columns task_index and task, it has {table.column_names}"
            )
        with damage_reported(path):
            columns = table[names.TASK_INDEX].to_pylist(), table[spelling].to_pylist()
        pairs = list(zip(*columns, strict=True))
    if any(type(index) is not int or task is None for index, task in pairs):
        raise DatasetError(f"{path}: every row needs an integer task_index and a task")
    return pairs
