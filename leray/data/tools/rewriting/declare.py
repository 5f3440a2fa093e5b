"""The files of a new dataset that describe it as a whole: `info.json`, tasks, statistics."""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leray.data import statistics
from leray.data.lerobot import layout
from leray.data.lerobot.schema import BOOKKEEPING, tasks_table, with_axis_names
from leray.data.lerobot.series import FileNames, write_groups
from leray.data.tools.rewriting.content import Content
from leray.data.tools.rewriting.output import Written
from leray.data.tools.rewriting.source import Source
from leray.data.video.probe import video_info
from leray.files import write_json

_OLD_KEYS = ("total_chunks", "total_videos")
_DEPTH_KEYS = ("is_depth_map", "video.is_depth_map")
_WRITTEN = (
    layout.INFO,
    layout.STATS,
    layout.TASKS_JSONL,
    layout.EPISODES_JSONL,
    layout.EPISODES_STATS_JSONL,
    layout.TASKS_PARQUET,
)


def write_declarations(
    folder: Path,
    sources: Sequence[Source],
    content: Content,
    written: Written,
    *,
    data_files_size_in_mb: int,
    video_files_size_in_mb: int,
) -> None:
    """Write `info.json`, the task table and the statistics; rows and videos are there.

    Keys of the first source's `info.json` that the format does not define are kept.

    Raises:
        OSError: the disk is full.
    """
    write_groups(folder / layout.TASKS_PARQUET, [tasks_table(content.tasks)])
    write_json(folder / layout.STATS, statistics.to_json(written.stats))
    old = sources[0].metadata.info
    info = {
        **{key: value for key, value in old.items() if key not in _OLD_KEYS},
        "codebase_version": layout.VERSIONS[-1],
        "robot_type": content.robot_type,
        "total_episodes": written.num_episodes,
        "total_frames": written.num_frames,
        "total_tasks": len(content.tasks),
        "chunks_size": layout.CHUNKS_SIZE,
        "data_files_size_in_mb": data_files_size_in_mb,
        "video_files_size_in_mb": video_files_size_in_mb,
        "fps": content.fps,
        "splits": _splits(sources, written.num_episodes),
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if content.videos else None,
        "features": {
            **{name: _entry(folder, content, name) for name in content.features},
            **BOOKKEEPING.to_info(),
        },
    }
    write_json(folder / layout.INFO, info)


def copy_extras(folder: Path, sources: Sequence[Source]) -> list[str]:
    """Copy files that the format does not define (a card, `meta/modality.json`) to a new dataset.

    Returns:
        Those that the sources do not share and that were therefore not copied.
    """
    roots = [source.metadata.root for source in sources]
    names = {
        path.relative_to(root).as_posix()
        for root in roots
        for place in (root, root / "meta")
        for path in place.iterdir()
        if path.is_file() and _is_own(path, root)
    }
    unlike = []
    for name in sorted(names.difference(_WRITTEN)):
        first, *others = (root / name for root in roots)
        if all(file.is_file() and filecmp.cmp(first, file, shallow=False) for file in others):
            shutil.copyfile(first, folder / name)
        else:
            unlike.append(name)
    return unlike


def _is_own(path: Path, root: Path) -> bool:
    """Tell whether a file is the dataset's own, and no link to one elsewhere on this machine."""
    # In the Hub's cache, the files of a snapshot are links to the contents kept beside it.
    home = root.parents[1] if root.parent.name == "snapshots" else root
    return path.resolve().is_relative_to(home.resolve())


def _entry(folder: Path, content: Content, name: str) -> dict[str, Any]:
    """Return what `info.json` says about a feature."""
    entry = dict(content.entries[name])
    feature = content.features[name]
    if not feature.is_visual:
        return entry
    if entry.get("names") is None:
        axes = with_axis_names(content.features.select([name]))[name].names
        entry["names"] = list(axes or ())
    if feature.dtype == "video":
        told = (entry.pop("video_info", None), entry.get("info"))  # v2.0's name, and today's
        old = {key: each[key] for each in told if isinstance(each, dict) for key in each}
        first = FileNames(folder, layout.VIDEO_PATH, layout.CHUNKS_SIZE, name).path(0)
        depth = {key: old[key] for key in _DEPTH_KEYS if key in old}
        entry["info"] = {**old, **video_info(first, content.fps), **depth}
    return entry


def _splits(sources: Sequence[Source], num_episodes: int) -> dict[str, str]:
    """Keep the splits of a dataset that is taken as a whole, if they fit it."""
    whole = {"train": f"0:{num_episodes}"}
    splits = sources[0].metadata.info.get("splits")
    if len(sources) > 1 or num_episodes != len(sources[0].metadata.episodes):
        return whole
    if not isinstance(splits, dict) or not splits:
        return whole
    return splits if all(_fits(text, num_episodes) for text in splits.values()) else whole


def _fits(text: Any, num_episodes: int) -> bool:
    start, _, stop = str(text).partition(":")
    return start.isdecimal() and stop.isdecimal() and int(start) <= int(stop) <= num_episodes
