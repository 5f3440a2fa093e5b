"""Where declarations and files part: what is odd is reported, what is absent is dropped."""

from pathlib import Path
from typing import Any

from leray.data import names
from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import EpisodeTable
from leray.data.lerobot.parquet import open_parquet


def drop_unreadable(
    root: Path,
    info: dict[str, Any],
    declared: Features,
    episodes: EpisodeTable,
    findings: list[str],
) -> Features:
    """Return the declared features that exist on disk, judged by the first files.

    Args:
        root: the dataset's folder.
        info: content of `info.json`.
        declared: all features of `info.json`.
        episodes: the dataset's episodes.
        findings: gains one line per feature that is dropped and per column that is not declared.

    Raises:
        DatasetError: the first data file that is there is damaged, or none is there.
    """
    if not episodes.files:
        return declared
    # Some of the files suffice: a download of a few episodes has only theirs.
    present = (name for name in episodes.files if (root / name).is_file())
    with open_parquet(root / next(present, episodes.files[0])) as file:
        columns = set(file.schema_arrow.names)
    known = set(episodes.files)
    kept = []
    for name, feature in declared.items():
        if feature.dtype == "video":
            if (reason := _missing_video(root, info, episodes, name)) is not None:
                findings.append(f"camera {name!r} is declared but {reason}; it is left out")
                continue
        elif name not in columns:
            findings.append(f"feature {name!r} is declared but has no column; it is left out")
            continue
        kept.append(name)
    orphans = sorted(
        path.relative_to(root).as_posix() for path in (root / "data").glob("*/*.parquet")
    )
    findings.extend(
        f"{path} belongs to no episode; it is not read" for path in orphans if path not in known
    )
    findings.extend(
        f"column {name!r} is not declared in {layout.INFO}; it is not read"
        for name in sorted(columns - set(declared))
    )
    if names.FRAME_INDEX not in columns:
        findings.append("there is no frame_index column; it is counted from the episode lengths")
    timestamp = declared.get(names.TIMESTAMP)
    if timestamp is not None and timestamp.dtype != "float32":
        findings.append(f"timestamps are {timestamp.dtype}; LeRobot writes float32")
    return declared.select(kept)


def compare_counters(
    info: dict[str, Any],
    features: Features,
    episodes: EpisodeTable,
    task_count: int,
    findings: list[str],
) -> None:
    """Report counters and splits of `info.json` that differ from what there is."""
    found = {
        "total_episodes": len(episodes),
        "total_frames": episodes.frames,
        "total_tasks": task_count,
    }
    if info["codebase_version"] != "v3.0":
        cameras = sum(feature.dtype == "video" for feature in features.values())
        found["total_videos"] = cameras * len(episodes)
        found["total_chunks"] = -(
            -len(episodes) // int(info.get("chunks_size", layout.CHUNKS_SIZE))
        )
    findings.extend(
        f"{layout.INFO} says {name} {info.get(name)}, there are {count}"
        for name, count in found.items()
        if info.get(name) != count
    )
    splits = info.get("splits")
    for name, text in splits.items() if isinstance(splits, dict) else ():
        if not _is_range_within(text, len(episodes)):
            findings.append(
                f"split {name!r} is {text!r}, not a range within the {len(episodes)} episodes"
            )


def _missing_video(
    root: Path, info: dict[str, Any], episodes: EpisodeTable, camera: str
) -> str | None:
    """Say why a camera has no files; None when it has some."""
    if info.get("video_path") is None:
        return f"{layout.INFO} has no video_path"
    if camera not in episodes.videos:
        return "the episodes metadata does not say where its videos are"
    folders = list(dict.fromkeys(Path(file).parent for file in episodes.videos[camera].files))
    if any(next((root / folder).glob("*.mp4"), None) for folder in folders):
        return None
    return f"has no video in {folders[0].as_posix()}"


def _is_range_within(text: Any, count: int) -> bool:
    start, _, stop = str(text).partition(":")
    return start.isdecimal() and stop.isdecimal() and int(start) <= int(stop) <= count
