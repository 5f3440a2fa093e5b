"""What a dataset's metadata holds, as far as it can be read: what every other check rests on."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Features
from leray.data.lerobot import checks, layout
from leray.data.lerobot.episodes import EpisodeTable, read_episodes
from leray.data.lerobot.folder import is_local
from leray.data.lerobot.metadata import read_info, read_task_rows
from leray.data.tools.check.findings import Findings
from leray.errors import DatasetError

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


@dataclass(frozen=True)
class Contents:
    """The metadata of one dataset folder."""

    root: Path
    info: dict[str, Any]
    """`info.json` as it stands."""
    declared: Features
    """All features of `info.json`."""
    features: Features
    """Those that exist on disk, judged by the first files; bookkeeping columns included."""
    task_rows: list[tuple[int, Any]] | None
    """Task index and text as stored, in stored order; None when they cannot be read."""
    episodes: EpisodeTable
    is_complete: bool
    """Whether the first data file could be opened, so that `features` are known."""

    @property
    def version(self) -> str:
        """`v2.0`, `v2.1` or `v3.0`."""
        return str(self.info["codebase_version"])

    @property
    def is_v3(self) -> bool:
        """Whether files hold many episodes each."""
        return self.version == "v3.0"

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    @property
    def cameras(self) -> list[str]:
        """Video features that have files."""
        return [name for name, f in self.features.items() if f.dtype == "video"]

    @property
    def columns(self) -> Features:
        """Numeric and text features that have a column."""
        return self.features.select(
            name for name, f in self.features.items() if f.is_numeric or f.dtype == "string"
        )

    @cached_property
    def task_of(self) -> dict[int, Any]:
        """Task text by task index, as far as it is known."""
        return dict(self.task_rows or ())

    @cached_property
    def first_frame(self) -> NDArray[np.int64]:
        """Number of each episode's first frame in the dataset [episodes]."""
        first: NDArray[np.int64] = np.cumsum(self.episodes.length) - self.episodes.length
        return first

    @cached_property
    def positions_in(self) -> list[NDArray[np.int64]]:
        """The episodes of each data file, as positions in the table, in stored order."""
        order = np.argsort(self.episodes.file, kind="stable")
        counts = np.bincount(self.episodes.file, minlength=len(self.episodes.files))
        return np.split(order, np.cumsum(counts)[:-1]) if len(counts) else []


def local_folder(root: str | Path) -> Path:
    """Return a dataset's folder as a local path.

    Raises:
        DatasetError: it is on another machine.
    """
    text = str(root)
    if (isinstance(root, str) or is_local(root)) and not _ADDRESS.match(text):
        return Path(text)
    raise DatasetError(
        f"{text} is no local folder; bring the dataset here first (`leray dataset pull`)"
    )


def read_contents(root: Path, findings: Findings) -> Contents | None:
    """Read the metadata; what cannot be read becomes a finding.

    Returns:
        None when too little can be read for any further check.
    """
    try:
        info = read_info(root)
        declared = Features.from_info(info.get("features"))
        cameras = [name for name, feature in declared.items() if feature.dtype == "video"]
        episodes = read_episodes(root, info, [], cameras)
    except DatasetError as error:
        findings.error("unusable", str(error), blocks=True)
        return None
    task_rows = _task_rows(root, info["codebase_version"], findings)
    features, is_complete = declared, True
    try:
        features = checks.drop_unreadable(root, info, declared, episodes, [])
    except DatasetError:  # the file is reported where files are looked at
        is_complete = False
    return Contents(
        root=root,
        info=info,
        declared=declared,
        features=features,
        task_rows=task_rows,
        episodes=episodes,
        is_complete=is_complete,
    )


def task_file(version: str) -> str:
    """Return the file that holds the tasks."""
    return layout.TASKS_PARQUET if version == "v3.0" else layout.TASKS_JSONL


def _task_rows(root: Path, version: str, findings: Findings) -> list[tuple[int, Any]] | None:
    name = task_file(version)
    if not (root / name).is_file():
        findings.error("tasks", "is missing: task strings are unknown", file=name, repairable=True)
        return None
    try:
        return read_task_rows(root / name)
    except DatasetError as error:
        findings.error("tasks", str(error), file=name, blocks=True)
        return None
