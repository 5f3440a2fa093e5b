"""Files that no episode needs: data that was never counted, and what interrupted writers left."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leray.data.lerobot import layout
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings

ORPHAN_SUFFIX = ".orphan"
"""Ends the name of a file that was moved aside: no reader takes it for part of the dataset."""
IMAGES = "images"
"""Folder of the pictures of an episode that is being recorded."""

_FOLDERS = ("meta", "data", "videos")


@dataclass(frozen=True, slots=True)
class Stray:
    """A file or folder that does not belong to the dataset."""

    path: Path
    kind: Literal["data", "video", "temporary", "images"]
    is_safe: bool
    """Whether it can be moved aside without asking."""


def strays(contents: Contents) -> Iterator[Stray]:
    """Find what does not belong to the dataset."""
    root = contents.root
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.tmp")):
            yield Stray(path, "temporary", is_safe=True)
    needed = {root / name for name in contents.episodes.files}
    for path in sorted((root / "data").rglob("*.parquet")):
        if path not in needed and not path.name.startswith("."):
            yield Stray(path, "data", is_safe=True)
    needed = {root / name for table in contents.episodes.videos.values() for name in table.files}
    for path in sorted((root / "videos").rglob("*.mp4")):
        if path not in needed and not path.name.startswith("."):
            # The files of a camera that is not declared may be all there is of it.
            yield Stray(path, "video", is_safe=_is_declared(contents, path))
    pictures = any(feature.dtype == "image" for feature in contents.declared.values())
    if (root / IMAGES).is_dir():
        yield Stray(root / IMAGES, "images", is_safe=not pictures)


def check_orphans(contents: Contents, findings: Findings) -> None:
    """Report what does not belong to the dataset."""
    for stray in strays(contents):
        name = stray.path.relative_to(contents.root).as_posix()
        where = {"file": name, "repairable": stray.is_safe}
        if stray.kind == "temporary":
            findings.warning("leftover", "is a temporary file of an interrupted writer", **where)
        elif stray.kind == "images":
            message = "holds pictures of a recording: it should be gone once they are encoded"
            findings.warning("leftover", message, **where)
        elif stray.kind == "data" and contents.is_v3:
            message = "belongs to no episode, and LeRobot reads every file that is there"
            findings.error("orphan", message, **where)
        elif stray.is_safe:
            findings.warning("orphan", "belongs to no episode", **where)
        else:
            findings.warning("orphan", f"belongs to no camera of {layout.INFO}", **where)


def _is_declared(contents: Contents, path: Path) -> bool:
    parts = path.relative_to(contents.root).parts
    return any(camera in parts for camera in contents.episodes.videos)
