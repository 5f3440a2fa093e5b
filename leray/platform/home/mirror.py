"""The thread that brings a run's folder to a store while training goes on."""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from leray.platform.home.index import Index, StoredCheckpoint, StoredFile
from leray.platform.home.lock import LockLostError, RunLock
from leray.platform.home.loose import LooseFiles
from leray.platform.home.replay import (
    BLOCKS,
    ReplayGoneError,
    block_name,
    read_replay,
)
from leray.platform.home.store import Store
from leray.platform.run_directory import CHECKPOINTS, TRAINING_STATE, RunDirectory

logger = logging.getLogger(__name__)

LOOK_S, SYNC_S = 1.0, 20.0
"""Time between two looks at the checkpoints, and at logs and evaluations."""
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
PATIENCE_S = 60.0
"""How long the end of a run waits for a store that takes nothing."""
FINISH_TIMEOUT_S = 1800.0
"""How long it waits for one that takes something."""
REPORT_S = 10.0


class Mirror:
    """Brings checkpoints, replay, logs and evaluations of a run to a store.

    What is there to bring is seen by looking at the folder, so nothing is forgotten by a process
    that was killed. Failures of the store are told once and tried again; training is never waited
    for and never waits.

    Args:
        store: the run's place.
        lock: its lock, held.
        index: what is in force there.
        run: the local folder.
        keep: how many of the newest checkpoints are kept there; None is all.
    """

    def __init__(
        self, store: Store, lock: RunLock, index: Index, run: RunDirectory, *, keep: int | None
    ) -> None:
        self._store, self._lock, self._run, self._keep = store, lock, run, keep
        self._index = index
        self._folders = {checkpoint.folder for checkpoint in index.checkpoints.values()}
        """Every folder for a checkpoint that was ever used, so that none is used twice."""
        self._brought: dict[int, object] = {}
        """Identity of the local checkpoint that the stored one of a step was made from."""
        self._targets: dict[object, str] = {}
        self._sent: set[str] = set()
        """Objects that are there and not yet named by the index."""
        self._loose = LooseFiles(store, run.root, self._moved)
        self._unswept = True
        self._failure: Exception | None = None
        self._gone = ""
        self._files_due_s = 0.0
        self._moved_bytes = 0
        self._wake, self._closing, self._given_up = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._work, name="leray-home", daemon=True)

    def start(self) -> None:
        """Begin to bring what is there and what comes."""
        self._thread.start()

    def finish(self, say: Callable[[str], None]) -> None:
        """Bring what is left, wait for it as long as it moves on, and end.

        Args:
            say: told how it goes on where that takes long.
        """
        self._closing.set()
        self._wake.set()
        began_s = quiet_s = told_s = time.monotonic()
        moved = self._moved_bytes
        while self._thread.is_alive():
            self._thread.join(0.1)
            now_s = time.monotonic()
            if self._moved_bytes != moved:
                moved, quiet_s = self._moved_bytes, now_s
            if now_s - quiet_s > PATIENCE_S or now_s - began_s > FINISH_TIMEOUT_S:
                break
            if now_s - told_s > REPORT_S:
                told_s = now_s
                say(f"bringing the run to {self._store.url}: {moved / 2**20:.0f} MiB so far")
        self.give_up()

    def left(self) -> list[str]:
        """Return what is not in the store as it is here."""
        stored = self._index.checkpoints
        left = [
            f"checkpoint {step:06d}"
            for step, folder in self._pending()
            if step not in stored or stored[step].files != _manifest(folder)
        ]
        last = self._run.last_checkpoint()
        if not left and last is not None and self._index.resume != last[0]:
            left.append(f"the replay of checkpoint {last[0]:06d}")
        files = self._loose.left()
        if files:
            left.append(files[0] if len(files) == 1 else f"{len(files)} files such as {files[0]}")
        return left

    def give_up(self) -> None:
        """Bring nothing any more."""
        self._given_up.set()
        self._wake.set()

    @property
    def reason(self) -> str:
        """Why something is left."""
        if isinstance(self._failure, LockLostError):
            return str(self._failure)
        if self._failure is not None:
            return self._store.explain(self._failure)
        return self._gone or "the store is too slow"

    def _work(self) -> None:
        pause_s = FIRST_RETRY_S
        while not self._given_up.is_set():
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                self._bring(at_once=closing)
            except LockLostError as error:
                self._failure = error
                logger.warning("%s: this run is kept in %s only", error, self._run.root)
                return
            except Exception as error:  # the network, the store, the local disk: training goes on
                self._note(error)
                self._wait(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
                continue
            if self._failure is not None:
                logger.warning("%s is back; nothing was lost", self._store.url)
            self._failure, pause_s = None, FIRST_RETRY_S
            if closing:
                return
            self._wait(LOOK_S)

    def _wait(self, seconds: float) -> None:
        if not self._closing.is_set() or self._failure is not None:
            self._wake.wait(seconds)

    def _note(self, error: Exception) -> None:
        if self._failure is None:
            logger.warning(
                "%s %s. Training goes on; the run is kept in %s and brought there later.",
                self._store.url, self._store.explain(error), self._run.root,
            )  # fmt: skip
        self._failure = error

    def _bring(self, *, at_once: bool) -> None:
        pending = self._pending()
        now_s, at_once = time.monotonic(), at_once or bool(pending)
        if at_once or now_s >= self._files_due_s:
            self._loose.bring(at_once=at_once)
            self._files_due_s = now_s + SYNC_S
        for step, folder in pending:
            self._bring_checkpoint(step, folder)
        self._commit(self._linked(self._index))
        if self._unswept:
            self._sweep()

    def _pending(self) -> list[tuple[int, Path]]:
        """Return the checkpoints to bring: the last, the best, then the newest first."""
        last, best = self._run.last_checkpoint(), self._run.best_checkpoint()
        others = reversed(self._run.list_checkpoints())
        ordered = dict.fromkeys(each for each in (last, best, *others) if each is not None)
        return [
            (step, folder)
            for step, folder in ordered
            if self._brought.get(step) != _identity(folder)
        ]

    def _bring_checkpoint(self, step: int, folder: Path) -> None:
        """Bring a checkpoint, and of the last one the replay; then name it."""
        identity = _identity(folder)
        try:
            held = self._hold(folder)
            if identity is None or held is None or identity != _identity(folder):
                return  # deleted in favour of newer ones, or written anew
            index = self._with_checkpoint(step, identity, held)
            last = self._run.last_checkpoint()
            wanted = index.resume is None or step > index.resume or (last or (None,))[0] == step
            if wanted and index.resume != step:
                index = self._with_replay(index, step, held / TRAINING_STATE)
            self._commit(self._linked(index))
            self._brought[step] = identity
        finally:
            shutil.rmtree(self._holding, ignore_errors=True)

    def _with_checkpoint(self, step: int, identity: object, folder: Path) -> Index:
        """Send a checkpoint's files, unless they are there; return the index that names them."""
        files = _manifest(folder)
        stored = self._index.checkpoints.get(step)
        if stored is not None and stored.files == files:
            return self._index
        target = self._target(step, identity)
        for name, file in files.items():
            self._put(folder / name, f"{target}/{name}", file.sha256)
        checkpoints = {**self._index.checkpoints, step: StoredCheckpoint(target, files)}
        index = replace(self._index, checkpoints=checkpoints)
        if index.resume == step:  # that replay was of the checkpoint this one replaces
            index.resume, index.replay = None, {}
        return index

    def _with_replay(self, index: Index, step: int, training_state: Path) -> Index:
        """Send the replay of a checkpoint as long as it can be had; return the index with it."""
        present = self._index.digests()

        def send(digest: str, content: bytes) -> None:
            if digest not in present and block_name(digest) not in self._sent:
                self._store.write(block_name(digest), content)
                self._sent.add(block_name(digest))
                self._moved(len(content))

        try:
            replay = read_replay(self._run.replay, training_state, send)
        except ReplayGoneError as error:
            known = "none" if index.resume is None else f"step {index.resume}"
            self._gone = f"{error}; another machine would go on from {known}"
            logger.warning("%s lacks a replay of step %d: %s", self._store.url, step, self._gone)
            return index
        return replace(index, resume=step, replay=replay)

    def _linked(self, index: Index) -> Index:
        """Return an index with `last` and `best` as they are here, of what is there.

        Where the last one here is not there yet, the newest before it is the last.
        """
        index = replace(index)
        last, best = self._run.last_checkpoint(), self._run.best_checkpoint()
        if last is not None:
            before = [step for step in index.checkpoints if step <= last[0]]
            index.last = max(before, default=index.last)
        if best is not None and best[0] in index.checkpoints:
            index.best = best[0]
        index.prune(self._keep)
        return index

    def _commit(self, index: Index) -> None:
        """Put an index in force; objects that it no longer names are deleted then."""
        if index == self._index:
            return
        self._lock.check()
        if self._given_up.is_set():
            raise LockLostError(f"{self._store.url}: the run has ended")
        index.write(self._store)
        self._index = index
        self._unswept = True
        self._sweep()

    def _sweep(self) -> None:
        found = [*self._store.files(CHECKPOINTS), *self._store.files(BLOCKS)]
        self._sent.clear()
        self._store.remove(set(found) - self._index.names())
        self._unswept = False

    def _target(self, step: int, identity: object) -> str:
        """Return the folder for a checkpoint: the same when it is tried again, else a new one."""
        if identity not in self._targets:
            folder, number = f"{CHECKPOINTS}/{step:06d}", 1
            while folder in self._folders:
                number += 1
                folder = f"{CHECKPOINTS}/{step:06d}.{number}"
            self._folders.add(folder)
            self._targets[identity] = folder
        return self._targets[identity]

    def _put(self, file: Path, name: str, sha256: str) -> None:
        if f"{name} {sha256}" not in self._sent:
            self._store.upload(file, name, self._moved)
            self._sent.add(f"{name} {sha256}")
            self._moved(1)  # also where the filesystem does not tell

    def _moved(self, num_bytes: int) -> None:
        self._moved_bytes += num_bytes

    @property
    def _holding(self) -> Path:
        return self._run.root.with_name(f"{self._run.root.name}.sending")

    def _hold(self, folder: Path) -> Path | None:
        """Return a copy of a checkpoint that stays when it is deleted, or None if it is gone.

        The copy is made of hard links, which take no space; where there are none, of the files.
        """
        shutil.rmtree(self._holding, ignore_errors=True)
        try:
            shutil.copytree(folder, self._holding, copy_function=_link)
        except (FileNotFoundError, shutil.Error):
            if folder.is_dir():
                raise
            return None
        return self._holding


def _identity(folder: Path) -> object:
    """Return what tells a checkpoint's folder from another that takes its place, None if gone."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return folder.name, status.st_ino, status.st_mtime_ns


def _manifest(folder: Path) -> dict[str, StoredFile]:
    """Return size and digest of every file of a checkpoint."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            found[name] = StoredFile(path.stat().st_size, digest)
    return found


def _link(source: str, target: str) -> None:
    """Give a file a second name; where the filesystem has no links, copy it."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
