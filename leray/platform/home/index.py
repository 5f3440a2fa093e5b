"""What a stored run consists of: one small file, written last, that names all that is whole.

Objects are put first and named then; those no longer named are deleted afterwards. So whoever reads
the index finds everything it names, whenever the writer was killed. The index itself is written
under two names, one after the other, and carries its own checksum: where a filesystem shows a half
of one, the other is whole.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from leray.errors import CheckpointError
from leray.platform.home.replay import BlockFile, Manifest, block_name
from leray.platform.home.store import Store
from leray.platform.run_directory import BEST, LAST

INDEX = "run.json"
NEXT_INDEX = "run.next.json"
VERSION = 1
READS, READ_PAUSE_S = 5, 0.2


@dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the store."""

    folder: str
    """Where it is; not always `checkpoints/<step>`, as one that is named is never overwritten."""
    files: dict[str, StoredFile]
    """By their path in the folder."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass
class Index:
    """The content of `run.json`."""

    run: str
    """Identity of the run."""
    writer: str
    """Identity of the local folder that was brought here last."""
    checkpoints: dict[int, StoredCheckpoint] = field(default_factory=dict)
    """The complete ones, by step."""
    last: int | None = None
    """The newest checkpoint."""
    best: int | None = None
    resume: int | None = None
    """The newest checkpoint whose replay is here too, if the algorithm has one."""
    replay: Manifest = field(default_factory=dict)
    """The replay as it was at `resume`."""

    def names(self) -> set[str]:
        """Return the names of all objects in use."""
        found = {
            f"{checkpoint.folder}/{name}"
            for checkpoint in self.checkpoints.values()
            for name in checkpoint.files
        }
        return found | {block_name(digest) for digest in self.digests()}

    def digests(self) -> set[str]:
        """Return the digests of the replay's blocks."""
        return {digest for file in self.replay.values() for digest in file.blocks if digest}

    def step_of(self, which: str) -> int | None:
        """Return the step that `last`, `best` or a number means; None where there is none."""
        if which in (LAST, BEST):
            return self.last if which == LAST else self.best
        step = int(which) if which.isdecimal() else -1
        return step if step in self.checkpoints else None

    def prune(self, keep: int | None) -> None:
        """Name only the newest `keep` checkpoints, and those that something points to."""
        if keep is None:
            return
        newest = sorted(self.checkpoints)[-max(keep, 1) :]
        kept = {*newest, self.last, self.best, self.resume}
        self.checkpoints = {s: c for s, c in self.checkpoints.items() if s in kept}

    def write(self, store: Store) -> None:
        """Put the index in force."""
        content = _encode(self)
        store.write(NEXT_INDEX, content)
        store.write(INDEX, content)


def read_index(store: Store) -> Index | None:
    """Return what is stored at a place; None where no run is.

    Raises:
        CheckpointError: the index is damaged, or of a version that is not known.
        Exception: whatever the filesystem raises where it cannot be reached.
    """
    for _ in range(READS):
        first, second = _read(store, INDEX), _read(store, NEXT_INDEX)
        for content in (first, second):
            index = None if content is None else _decode(content, store)
            if index is not None:
                return index
        if first is None:  # at most the first index was being written
            return None
        time.sleep(READ_PAUSE_S)
    raise CheckpointError(f"{store.url}/{INDEX} is damaged: remove the run, or bring it there anew")


def is_safe(name: str) -> bool:
    """Tell whether a name in an index stays inside its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _read(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _encode(index: Index) -> bytes:
    run = {
        "run": index.run,
        "writer": index.writer,
        "last": index.last,
        "best": index.best,
        "resume": index.resume,
        "checkpoints": {
            str(step): {
                "folder": checkpoint.folder,
                "files": {n: [f.size, f.sha256] for n, f in checkpoint.files.items()},
            }
            for step, checkpoint in sorted(index.checkpoints.items())
        },
        "replay": {name: [file.size, file.blocks] for name, file in index.replay.items()},
    }
    return json.dumps({"version": VERSION, "sha256": _checksum(run), "run": run}).encode()


def _decode(content: bytes, store: Store) -> Index | None:
    """Return the index, or None where it is not whole."""
    try:
        told = json.loads(content)
        if told["version"] != VERSION:
            raise CheckpointError(
                f"{store.url}/{INDEX} has version {told['version']} and {VERSION} is known: "
                "update leray"
            )
        run = told["run"]
        if told["sha256"] != _checksum(run):
            return None
        names = [*run["replay"], *(c["folder"] for c in run["checkpoints"].values())]
        names += [name for c in run["checkpoints"].values() for name in c["files"]]
        if not all(map(is_safe, names)):
            return None
        return Index(
            run=run["run"],
            writer=run["writer"],
            last=run["last"],
            best=run["best"],
            resume=run["resume"],
            checkpoints={int(step): _checkpoint(c) for step, c in run["checkpoints"].items()},
            replay={name: BlockFile(*file) for name, file in run["replay"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _checkpoint(told: dict[str, Any]) -> StoredCheckpoint:
    files = {name: StoredFile(*file) for name, file in told["files"].items()}
    return StoredCheckpoint(told["folder"], files)


def _checksum(run: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
