"""Where datasets of the Hub lie on this machine, and whether what is there is enough.

Two kinds of places: a folder that the user names, which then belongs to one commit of one dataset
for good, and the cache, where each commit has a folder of its own. In both, `meta/info.json` is
the last file of `meta/` to arrive: where it is, all metadata is.
"""

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from huggingface_hub import constants

from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import read_episodes
from leray.data.lerobot.metadata import read_info
from leray.errors import DatasetError
from leray.files import write_atomic, write_json

RECORD = ".cache/leray/pulled.json"
"""Says which commit a folder was pulled from; folders without it are the user's own."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def lerobot_home() -> Path:
    """Return the folder that holds datasets by repo id: `HF_LEROBOT_HOME`, else LeRobot's default.

    Raises:
        DatasetError: the variable is set under the name it had in the past.
    """
    if "LEROBOT_HOME" in os.environ:
        raise DatasetError(
            "LEROBOT_HOME is now called HF_LEROBOT_HOME: unset the one, set the other"
        )
    home = os.environ.get("HF_LEROBOT_HOME")
    return Path(home).expanduser().absolute() if home else Path(constants.HF_HOME) / "lerobot"


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller needs of a dataset."""

    episodes: Sequence[int] | None
    """Episode indices; None means the whole dataset."""
    videos: bool
    """Whether the cameras' files are needed."""

    def files(self, folder: Path) -> list[str]:
        """Return the data and video files that are needed, by what a folder's metadata says.

        Raises:
            DatasetError: the metadata is damaged or of an unreadable version, or an episode does
                not exist.
        """
        info = read_info(folder)
        declared = Features.from_info(info.get("features"))
        cameras = [name for name, feature in declared.items() if feature.dtype == "video"]
        table = read_episodes(folder, info, [], cameras if self.videos else [])
        rows = np.arange(len(table))
        if self.episodes is not None:
            unknown = np.setdiff1d(np.asarray(self.episodes, dtype=np.int64), table.index)
            if len(unknown):
                there = f"0 to {table.index[-1]}" if len(table) else "none"
                raise DatasetError(f"{folder} has no episode {unknown[0]}; there are: {there}")
            rows = np.flatnonzero(np.isin(table.index, self.episodes))
        files = [table.files[file] for file in np.unique(table.file[rows])]
        for videos in table.videos.values():
            files += [videos.files[file] for file in np.unique(videos.file[rows])]
        return files

    def is_met(self, folder: Path, absent: Collection[str]) -> bool:
        """Tell whether a pulled folder holds what is needed, except what the Hub does not have."""
        if not (folder / layout.INFO).is_file():
            return False
        return set(missing(folder, self.files(folder))) <= set(absent)


def missing(folder: Path, files: Collection[str]) -> list[str]:
    """Return the files that a folder does not hold."""
    return [file for file in files if not (folder / file).is_file()]


@dataclass(frozen=True, slots=True)
class Record:
    """Where a pulled folder came from."""

    repo_id: str
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    absent: tuple[str, ...] = ()
    """Files that the metadata names and the Hub does not have."""


def read_record(path: Path, repo_id: str) -> Record | None:
    """Return the record of a pulled dataset; None for folders that were not pulled.

    Raises:
        DatasetError: it was pulled from another dataset, or the record is damaged.
    """
    if not path.is_file():
        return None
    stored = layout.read_json(path)
    try:
        repo, revision, commit = (str(stored[name]) for name in ("repo_id", "revision", "commit"))
        record = Record(repo, revision, commit, tuple(map(str, stored["absent"])))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: delete the folder and pull again") from error
    if record.repo_id != repo_id:
        raise DatasetError(f"{path} is of {record.repo_id}, not {repo_id}; give another folder")
    return record


def claim(folder: Path, record: Record) -> None:
    """Make a folder the place of one commit, before anything is written into it.

    Raises:
        DatasetError: it holds something else, or cannot be written.
    """
    known = read_record(folder / RECORD, record.repo_id)
    if known is not None and known.commit != record.commit:
        raise DatasetError(
            f"{folder} holds {known.repo_id} at {known.revision} ({known.commit[:8]}), not at "
            f"{record.revision} ({record.commit[:8]}); give another folder"
        )
    in_use = not folder.is_dir() or any(path.name != ".cache" for path in folder.iterdir())
    if known is None and folder.exists() and in_use:
        raise DatasetError(
            f"{folder} holds files that were not pulled from the Hub; give another folder"
        )
    try:
        if known is None:
            write_json(folder / RECORD, asdict(record))
        elif record.absent and record.absent != known.absent:
            write_json(folder / RECORD, asdict(replace(known, absent=record.absent)))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error}); give another folder") from error


class Cache:
    """One dataset's part of `HF_LEROBOT_HOME/hub`, laid out as `huggingface_hub` does it."""

    def __init__(self, repo_id: str) -> None:
        self._repo_id = repo_id
        self.folder = lerobot_home() / "hub"
        """The `cache_dir` of `huggingface_hub`."""
        self._dataset = self.folder / f"datasets--{repo_id.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a commit."""
        return self._dataset / "snapshots" / commit

    def has_content(self, digest: str) -> bool:
        """Tell whether a file with that content is here, under whatever name and commit."""
        return (self._dataset / "blobs" / digest).is_file()

    def remember(self, record: Record) -> None:
        """Note what a branch or tag is and what its commit lacks, for when there is no network.

        A cache that cannot be written, as shared ones often cannot, still serves what it has.
        """
        with suppress(OSError):
            if record.absent and not self._note(record.commit).is_file():
                write_json(self._note(record.commit), asdict(record))
            if self.find(record.revision) != self.snapshot(record.commit):
                write_atomic(self._dataset / "refs" / record.revision, record.commit.encode())

    def absent(self, commit: str) -> tuple[str, ...]:
        """Return the files that a commit lacks on the Hub itself."""
        record = read_record(self._note(commit), self._repo_id)
        return () if record is None else record.absent

    def _note(self, commit: str) -> Path:
        return self._dataset / ".leray" / f"{commit}.json"

    def find(self, revision: str) -> Path | None:
        """Return the folder of a branch, tag or commit that was pulled before."""
        commit = revision
        if not _COMMIT.fullmatch(revision):
            note = self._dataset / "refs" / revision
            commit = note.read_text(errors="replace") if note.is_file() else ""
        folder = self.snapshot(commit)
        return folder if _COMMIT.fullmatch(commit) and folder.is_dir() else None
