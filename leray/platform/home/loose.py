"""Bringing the files of a run that grow or come one by one: config, logs, evaluations."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from leray.platform.home.store import Store
from leray.platform.run_directory import CHECKPOINTS

ELSEWHERE = (CHECKPOINTS, "replay")
"""Folders that are brought by their own rules."""
PASSING = ("eval", "policy")
"""`eval/<step>/policy` is there only while a policy is evaluated."""
MARK = ".delivered"
"""Ending of the marks that say how far a journal has been delivered; see `journal.py`."""
SHARE = 20
"""A growing file is sent again after this many times the time that sending it took."""

State = tuple[int, int]


class LooseFiles:
    """Sends whole files that have changed.

    A mark says how far another file has been delivered: it is read before that file and sent after
    it, so that the store's mark never points behind the end of the store's file.

    Args:
        store: where to.
        root: the run's folder.
        moved: told how many more bytes are done.
    """

    def __init__(self, store: Store, root: Path, moved: Callable[[int], None]) -> None:
        self._store, self._root, self._moved = store, root, moved
        self._sent: dict[str, State | bytes] = {}
        """What each file was like when it was sent; of marks, the content."""
        self._not_before_s: dict[str, float] = {}

    def bring(self, *, at_once: bool) -> None:
        """Send what has changed.

        Args:
            at_once: also what was sent a short time ago.
        """
        marks = {name: path.read_bytes() for name, path in self._files() if name.endswith(MARK)}
        fresh = {
            name
            for name, path in self._files()
            if name not in marks and self._bring_file(name, path, at_once=at_once)
        }
        for name, content in marks.items():
            journal = name.removesuffix(MARK) + ".jsonl"
            if self._sent.get(name) != content and journal in fresh:
                self._store.write(name, content)
                self._sent[name] = content

    def left(self) -> list[str]:
        """Return the names of files that are not in the store as they are here."""
        return [
            name
            for name, path in self._files()
            if not name.endswith(MARK) and self._sent.get(name) != _state(path)
        ]

    def _bring_file(self, name: str, path: Path, *, at_once: bool) -> bool:
        """Send a file if it is time to; tell whether the store has it as it was just now."""
        state, began_s = _state(path), time.monotonic()
        if state is None or state == self._sent.get(name):
            return state is not None
        if not at_once and began_s < self._not_before_s.get(name, 0):
            return False
        try:
            self._store.upload(path, name, self._moved)
        except FileNotFoundError:
            if path.exists():
                raise
            return False  # deleted meanwhile
        self._moved(1)  # also where the filesystem does not tell
        self._sent[name] = state
        self._not_before_s[name] = began_s + SHARE * (time.monotonic() - began_s)
        return True

    def _files(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self._root.rglob("*")):
            parts = path.relative_to(self._root).parts
            passing = (parts[0], *parts[2:3]) == PASSING
            hidden = any(part.startswith(".") for part in parts)
            if parts[0] not in ELSEWHERE and not passing and not hidden and path.is_file():
                yield "/".join(parts), path


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
