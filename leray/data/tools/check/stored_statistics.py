"""Statistics as a dataset stores them, read so that one bad entry does not hide the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.parquet import damage_reported, open_parquet
from leray.data.statistics import KEYS, FeatureStatistics, Statistics
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.errors import DatasetError

_BATCH_EPISODES = 64
_PREFIX = "stats/"


def read_stored(contents: Contents, findings: Findings) -> Statistics | None:
    """Read `meta/stats.json`; what is no list of numbers is reported and left out.

    Returns:
        None when there is none that can be read.
    """
    path, where = contents.root / layout.STATS, {"file": layout.STATS}
    if not path.is_file():
        return None
    try:
        stored = layout.read_json(path)
    except DatasetError as error:
        findings.error("statistics", str(error), repairable=True, **where)
        return None
    if not isinstance(stored, dict):
        findings.error("statistics", "must be an object of features", repairable=True, **where)
        return None
    statistics = {}
    for name, entry in stored.items():
        statistics[name] = numbers_of(entry)
        if not isinstance(entry, dict):
            findings.error("statistics", "must be an object", column=name, repairable=True, **where)
        elif bad := [key for key in KEYS if key in entry and key not in statistics[name]]:
            message = f"{bad[0]} holds no numbers"
            findings.error("statistics", message, column=name, repairable=True, **where)
    return statistics


def numbers_of(entry: Any) -> FeatureStatistics:
    """Return the arrays of one feature's entry; what is no array of numbers is left out."""
    if not isinstance(entry, dict):
        return {}
    arrays = {key: _array(entry[key]) for key in KEYS if key in entry}
    return {key: array for key, array in arrays.items() if array is not None}


def _array(value: Any) -> NDArray[Any] | None:
    try:
        array = np.atleast_1d(np.asarray(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.dtype.kind in "biuf" and array.size else None


def episode_statistics_exist(contents: Contents) -> bool:
    """Tell whether the dataset has statistics of single episodes at all."""
    if not contents.is_v3:
        return (contents.root / layout.EPISODES_STATS_JSONL).is_file()
    for path in episodes_files(contents.root):
        with open_parquet(path) as file:
            if any(name.startswith(_PREFIX) for name in file.schema_arrow.names):
                return True
    return False


class EpisodeStatistics:
    """The stored statistics of single episodes, read along with the data, a few at a time.

    Both are in the order of episodes, so one pass over each suffices; episodes whose entry stands
    out of order are taken for absent.
    """

    def __init__(self, root: Path, version: str) -> None:
        self._entries = _from_parquet(root) if version == "v3.0" else _from_json_lines(root)
        self._next: tuple[int, Statistics] | None = None
        self._is_done = False

    def take(self, episode: int) -> Statistics | None:
        """Return the entry of an episode, which must be after those asked for before.

        Raises:
            DatasetError: the file is damaged.
        """
        while not self._is_done and (self._next is None or self._next[0] < episode):
            self._next = next(self._entries, None)
            self._is_done = self._next is None
        if self._next is not None and self._next[0] == episode:
            return self._next[1]
        return None


def _from_json_lines(root: Path) -> Iterator[tuple[int, Statistics]]:
    path = root / layout.EPISODES_STATS_JSONL
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = layout.parse_json(line)
                index, stats = int(row["episode_index"]), dict(row["stats"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DatasetError(
                    f"{path}, line {number} holds no statistics of an episode: {error}"
                ) from error
            yield index, {name: numbers_of(entry) for name, entry in stats.items()}


def _from_parquet(root: Path) -> Iterator[tuple[int, Statistics]]:
    for path in episodes_files(root):
        with damage_reported(path), open_parquet(path) as file:
            columns = [name for name in file.schema_arrow.names if name.startswith(_PREFIX)]
            for batch in file.iter_batches(
                _BATCH_EPISODES, columns=["episode_index", *columns], use_threads=False
            ):
                rows = batch.select(["episode_index", *columns])
                for row in rows.to_pylist():
                    index = row.pop("episode_index")
                    if type(index) is int:
                        yield index, _nested(row)


def _nested(row: dict[str, Any]) -> Statistics:
    """Turn `stats/<feature>/<key>` columns into entries; feature names hold no slash."""
    entries: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        name, _, key = column.removeprefix(_PREFIX).rpartition("/")
        if value is not None:
            entries.setdefault(name, {})[key] = value
    return {name: numbers_of(entry) for name, entry in entries.items()}
