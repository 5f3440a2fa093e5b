"""`leray dataset info`: what a dataset holds, on one page."""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leray.algorithms.config import require
from leray.data.lerobot import layout
from leray.data.lerobot.metadata import Metadata, read_metadata
from leray.data.statistics import KEYS
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError
from leray.files import write_json

_TASKS = 5
_NAMES_WIDTH = 44


@dataclass(kw_only=True)
class InfoConfig:
    """Everything `leray dataset info` is told."""

    root: Path | None = None
    """Local folder of the dataset (the one that holds `meta/info.json`)."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`, looked up on this machine and then on the Hub; not used
    where `root` is given."""
    json: Path | None = None
    """Also write everything to this file, as JSON."""

    def __post_init__(self) -> None:
        """Check that a dataset is named."""
        require(
            self.root is not None or self.repo_id is not None,
            "no dataset given: say --root=<folder>, or --repo_id=<user/name>",
        )


def run(config: InfoConfig) -> None:
    """Print the summary; no more of the dataset is read than its metadata and one video's tables.

    Raises:
        LerayError: there is no such dataset, or its metadata is damaged.
    """
    root = config.root
    if root is None:
        from leray.data.hub.download import resolve

        assert config.repo_id is not None
        root = resolve(config.repo_id, episodes=[0])
    summary = summarize(read_metadata(root))
    for line in _lines(summary):
        print("".join(char if char.isprintable() else "?" for char in line))
    if config.json is not None:
        write_json(config.json, summary)


def summarize(metadata: Metadata) -> dict[str, Any]:
    """Return what a dataset holds, as JSON values.

    Args:
        metadata: of the whole dataset.
    """
    episodes, tasks = metadata.episodes, Counter[str]()
    for listed in episodes.tasks:
        tasks.update(listed)
    lengths = episodes.length
    return {
        "root": str(metadata.root),
        "version": metadata.version,
        "robot_type": metadata.robot_type,
        "fps": metadata.fps,
        "episodes": len(episodes),
        "frames": episodes.frames,
        "duration_s": episodes.frames / metadata.fps,
        "episode_frames": {
            "min": int(lengths.min()) if len(lengths) else 0,
            "median": float(np.median(lengths)) if len(lengths) else 0.0,
            "max": int(lengths.max()) if len(lengths) else 0,
        },
        "tasks": [{"task": task, "episodes": tasks[task]} for task in metadata.tasks],
        "cameras": _cameras(metadata),
        "features": {
            name: {
                "dtype": feature.dtype,
                "shape": list(feature.shape),
                "names": None if feature.names is None else list(feature.names),
            }
            for name, feature in {**metadata.features, **metadata.bookkeeping}.items()
        },
        "files": _files(metadata),
        "statistics": _statistics(metadata),
        "findings": metadata.findings,
    }


def _cameras(metadata: Metadata) -> dict[str, dict[str, Any]]:
    """Look at the first video of each camera."""
    cameras: dict[str, dict[str, Any]] = {}
    for name, feature in metadata.features.items():
        if not feature.is_visual:
            continue
        height, width, channels = feature.image_shape
        cameras[name] = {"storage": feature.dtype, "height": height, "width": width}
        cameras[name]["channels"] = channels
        if feature.dtype != "video" or not len(metadata.episodes):
            continue
        path = metadata.root / metadata.episodes.videos[name].files[0]
        try:
            with VideoReader(path) as video:
                cameras[name] |= {
                    "codec": video.codec,
                    "pix_fmt": video.pix_fmt,
                    "fps": round(video.fps, 3),
                    "key_frame_distance": _distance(video),
                }
        except DatasetError as error:
            cameras[name]["error"] = str(error)
    return cameras


def _distance(video: VideoReader) -> int:
    """Return the longest run of frames that decoding must pass to reach one."""
    return int(np.diff([*video.keyframes, video.num_frames]).max())


def _files(metadata: Metadata) -> dict[str, dict[str, int]]:
    """Count files and bytes of each part of the dataset."""
    root = metadata.root
    parts = {"meta": [*(root / "meta").rglob("*")], "data": [*(root / "data").rglob("*.parquet")]}
    for name in metadata.features:
        if name in metadata.episodes.videos:
            parts[name] = [root / file for file in metadata.episodes.videos[name].files]
    counted = {}
    for part, paths in parts.items():
        sizes = [path.stat().st_size for path in paths if path.is_file()]
        counted[part] = {"files": len(sizes), "bytes": sum(sizes)}
    return counted


def _statistics(metadata: Metadata) -> dict[str, Any]:
    """Return which statistics are stored, and for which features they are missing."""
    path = metadata.root / layout.STATS
    stored: Any = {}
    if path.is_file():
        stored = layout.read_json(path)
    elif (path := metadata.root / layout.EPISODES_STATS_JSONL).is_file():
        rows = layout.read_json_lines(path)
        stored = rows[0].get("stats") if rows else {}
    entries = stored.items() if isinstance(stored, dict) else ()
    stored = {name: entry for name, entry in entries if isinstance(entry, dict)}
    wanted = [n for n, f in metadata.features.items() if f.is_numeric or f.is_visual]
    held = [set(stored[name]) for name in wanted if name in stored]
    common = set.intersection(*held) if held else set()
    return {
        "file": path.relative_to(metadata.root).as_posix() if stored else None,
        "keys": [key for key in KEYS if key in common],
        "missing": [name for name in wanted if name not in stored],
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return the page as lines of text."""
    lengths = summary["episode_frames"]
    lines = [
        summary["root"],
        f"  {summary['version']}, robot {summary['robot_type'] or 'unnamed'}, "
        f"{summary['fps']:g} frames/s",
        f"  {_count(summary['episodes'], 'episode')}, {_count(summary['frames'], 'frame')}, "
        f"{_duration(summary['duration_s'])}",
        f"  frames per episode: {lengths['min']:,} to {lengths['max']:,}, "
        f"median {lengths['median']:,.0f}",
        "",
        *_task_lines(summary["tasks"]),
        "",
        *_camera_lines(summary["cameras"]),
        "features",
        *_table(
            [
                (name, entry["dtype"], "x".join(map(str, entry["shape"])), _names(entry["names"]))
                for name, entry in summary["features"].items()
            ]
        ),
        "",
        "files",
        *_table(
            [
                (part, _count(count["files"], "file"), _size(count["bytes"]))
                for part, count in summary["files"].items()
            ]
        ),
        "",
        _statistics_line(summary["statistics"]),
    ]
    if summary["findings"]:
        lines += ["", "findings", *(f"  {finding}" for finding in summary["findings"])]
    return lines


def _task_lines(tasks: list[dict[str, Any]]) -> list[str]:
    lines = [f"tasks ({len(tasks):,})"]
    lines += _table([(_count(t["episodes"], "episode"), t["task"]) for t in tasks[:_TASKS]])
    if len(tasks) > _TASKS:
        lines.append(f"  and {len(tasks) - _TASKS:,} more")
    return lines


def _camera_lines(cameras: dict[str, dict[str, Any]]) -> list[str]:
    if not cameras:
        return []
    rows = []
    for name, camera in cameras.items():
        kind = camera.get("error") or "pictures in the data files"
        if "codec" in camera:
            kind = (
                f"{camera['codec']} {camera['pix_fmt']}, {camera['fps']:g} frames/s, "
                f"key frame every {camera['key_frame_distance']}"
            )
        rows.append((name, f"{camera['width']}x{camera['height']}", kind))
    return ["cameras", *_table(rows), ""]


def _statistics_line(statistics: dict[str, Any]) -> str:
    if statistics["file"] is None:
        return "statistics: none stored; they are computed when needed"
    line = f"statistics: {', '.join(statistics['keys']) or 'incomplete'} ({statistics['file']})"
    if statistics["missing"]:
        line += f"; none of {', '.join(statistics['missing'])}"
    return line


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _names(names: list[str] | None) -> str:
    text = ", ".join(names or ())
    return text if len(text) <= _NAMES_WIDTH else f"{text[: _NAMES_WIDTH - 3]}..."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
