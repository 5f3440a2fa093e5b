"""The local folder in which a run of a store works, and what this machine remembers of it."""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leray.files import write_json
from leray.platform.home.index import Index
from leray.platform.run_directory import TRAIN_CONFIG

SCRATCH_VARIABLE = "LERAY_SCRATCH"
"""Environment variable that names the folder in which runs of a store work."""
UNUSED_S = 30 * 24 * 3600.0
"""Age at which the local folder of a run is deleted that is wholly in its store."""


class Scratch:
    """The local folder of the run at an address.

    A file beside it says which run it is a copy of and who brought it to the store last, so that
    another machine's work is told from our own.

    Args:
        url: the run's address.
    """

    def __init__(self, url: str) -> None:
        from leray.data.stream.cache import cache_root

        given = os.environ.get(SCRATCH_VARIABLE)
        name = re.sub(r"[^\w.-]", "_", url.rpartition("/")[2])[:60]
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        root = Path(given).absolute() if given else cache_root()
        self.folder = root / "runs" / f"{name}-{digest}"
        self._state_file = self.folder.with_name(f"{self.folder.name}.json")

    @property
    def config_file(self) -> Path:
        """The run's config in the folder."""
        return self.folder / TRAIN_CONFIG

    def remember(self, index: Index, *, at_home: bool) -> None:
        """Note what the folder is a copy of.

        Args:
            index: the run.
            at_home: all of the folder is in the store.
        """
        write_json(self._state_file, {"run": index.run, "writer": index.writer, "at_home": at_home})

    def is_ahead_of(self, index: Index | None) -> bool:
        """Tell whether all that the store has came from this folder, which may have more."""
        state = _read(self._state_file)
        if not state or not self.config_file.is_file():
            return False
        return index is None or (index.run, index.writer) == (state["run"], state["writer"])

    def index(self) -> Index:
        """Return the index of a run of which nothing is in the store."""
        state = _read(self._state_file)
        return Index(state["run"], state["writer"])

    def work_folder(self) -> Path:
        """Return a new folder to fetch into; what an earlier fetch left, killed, is removed."""
        for leftover in self.folder.parent.glob(f".{self.folder.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        work = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}")
        work.mkdir(parents=True)
        return work

    def put_aside(self, say: Callable[[str], None]) -> None:
        """Make place for the run as another machine left it; what only this one has is kept."""
        if not self.folder.exists():
            return
        if _read(self._state_file).get("at_home"):
            shutil.rmtree(self.folder)
            return
        name = f"{self.folder.name}.aside-{time.strftime('%Y%m%d-%H%M%S')}"
        aside = self.folder.rename(self.folder.with_name(name))
        say(f"the run went on elsewhere; what this machine had of it is now in {aside}")

    def remove_unused(self) -> None:
        """Delete other runs' folders that are wholly in their stores and long unused."""
        for file in self.folder.parent.glob("*.json"):
            folder = file.with_suffix("")
            old = time.time() - file.stat().st_mtime > UNUSED_S
            if folder != self.folder and old and _read(file).get("at_home"):
                shutil.rmtree(folder, ignore_errors=True)
                file.unlink(missing_ok=True)


def _read(state_file: Path) -> dict[str, Any]:
    """Return what was noted; nothing where the file is missing or damaged."""
    try:
        state = json.loads(state_file.read_text())
        return {**state, "run": str(state["run"]), "writer": str(state["writer"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
