"""`info.json`: its keys, counters and splits, and whether the declared features make sense."""

from collections.abc import Callable
from typing import Any

from leray.data import names
from leray.data.features import Feature
from leray.data.lerobot import layout
from leray.data.lerobot.schema import BOOKKEEPING
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings

_MAX_AXES = 5
"""LeRobot stores arrays of up to five axes."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "robot_type": (lambda value: value is None or isinstance(value, str), "a text or null"),
    "chunks_size": (_is_count, "a positive integer; LeRobot's default is 1000"),
}
_KEYS_V3 = {
    "data_files_size_in_mb": (_is_count, "a positive integer; LeRobot's default is 100"),
    "video_files_size_in_mb": (_is_count, "a positive integer; LeRobot's default is 200"),
}


def check_info(contents: Contents, findings: Findings) -> None:
    """Check the keys of `info.json` that are not counters, and how old versions differ."""
    info, where = contents.info, {"file": layout.INFO}
    keys = _KEYS | (_KEYS_V3 if contents.is_v3 else {})
    for key, (is_valid, expected) in keys.items():
        if key not in info:
            findings.warning("info", f"{key} is missing; it must be {expected}", **where)
        elif not is_valid(info[key]):
            findings.warning("info", f"{key} is {info[key]!r}; it must be {expected}", **where)
    if type(info["fps"]) is not int:
        message = f"fps is {info['fps']!r}; LeRobot writes an integer"
        is_whole = float(info["fps"]).is_integer()
        findings.note("info", message, repairable=is_whole, **where)
    if not len(contents.episodes):
        findings.note("info", "the dataset has no episodes", **where)


def found_totals(contents: Contents) -> dict[str, int]:
    """Return the counters of `info.json` as they should be."""
    episodes = contents.episodes
    totals = {"total_episodes": len(episodes), "total_frames": episodes.frames}
    if contents.task_rows is not None:
        totals["total_tasks"] = len(contents.task_rows)
    if not contents.is_v3:
        totals["total_videos"] = len(contents.cameras) * len(episodes)
        chunks_size = contents.info.get("chunks_size", layout.CHUNKS_SIZE)
        totals["total_chunks"] = -(-len(episodes) // chunks_size)
    return totals


def check_totals(contents: Contents, findings: Findings) -> None:
    """Compare counters with what there is."""
    for name, count in found_totals(contents).items():
        stated = contents.info.get(name)
        if type(stated) is not int or stated != count:
            said = f"{name} is {stated!r}" if name in contents.info else f"{name} is missing"
            findings.error(
                "totals", f"{said}, there are {count}", file=layout.INFO, repairable=True
            )


def expected_splits(contents: Contents) -> dict[str, str] | None:
    """Return what `splits` should be; None where only its author can tell.

    A single split, or none, holds all episodes.
    """
    splits = contents.info.get("splits")
    everything = f"0:{len(contents.episodes)}"
    if not isinstance(splits, dict) or not splits:
        return {"train": everything} if len(contents.episodes) else {}
    if all(_is_range(text, len(contents.episodes)) for text in splits.values()):
        return splits
    return {name: everything for name in splits} if len(splits) == 1 else None


def check_splits(contents: Contents, findings: Findings) -> None:
    """Check that splits are ranges of episodes that exist."""
    splits, count = contents.info.get("splits"), len(contents.episodes)
    repairable = expected_splits(contents) is not None
    where = {"file": layout.INFO, "repairable": repairable}
    if not isinstance(splits, dict):
        findings.error("splits", f"splits is {splits!r}; it must name ranges of episodes", **where)
        return
    if not splits and count:
        findings.error("splits", f"there is no split; train should be 0:{count}", **where)
    for name, text in splits.items():
        if not _is_range(text, count):
            findings.error(
                "splits",
                f"split {name!r} is {text!r}; it must be a range within 0:{count}",
                **where,
            )


def _is_range(text: Any, count: int) -> bool:
    if not isinstance(text, str) or len(text) > 40:
        return False
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        return False
    return int(start) <= int(stop) <= count


def check_features(contents: Contents, findings: Findings) -> None:
    """Check the declared features against the format, and against what exists."""
    declared = contents.declared
    for name, feature in declared.items():
        where = {"file": layout.INFO, "column": name}
        for problem in _problems(name, feature):
            findings.warning("feature", problem, **where)
        if name not in contents.features:
            what = "has no videos" if feature.dtype == "video" else "has no column"
            code = "bookkeeping" if name in BOOKKEEPING else "absent"
            findings.error(code, f"is declared but {what}", repairable=True, **where)
    for name, expected in BOOKKEEPING.items():
        _check_bookkeeping(contents, name, expected, findings)


def _check_bookkeeping(
    contents: Contents, name: str, expected: Feature, findings: Findings
) -> None:
    where = {"file": layout.INFO, "column": name}
    if name not in contents.declared:
        findings.error("bookkeeping", "is not declared", repairable=True, **where)
        return
    feature = contents.declared[name]
    if feature.shape != (1,) or feature.kind != expected.kind:
        found = f"{feature.dtype}{list(feature.shape)}"
        is_column = feature.is_numeric or feature.dtype == "string"
        blocks = name in contents.features and name != names.INDEX and not is_column
        message = f"is {found}; it must be {expected.dtype}[1]"
        findings.error("bookkeeping", message, blocks=blocks, **where)
    elif feature.dtype != expected.dtype:
        message = f"is {feature.dtype}; LeRobot writes {expected.dtype}"
        findings.note("bookkeeping", message, **where)


def _problems(name: str, feature: Feature) -> list[str]:
    """Say what is wrong with a declaration in itself."""
    if feature.is_visual:
        return _visual_problems(feature)
    problems = []
    if feature.dtype in ("string", "language") and feature.shape != (1,):
        problems.append(f"is text of shape {list(feature.shape)}; it must be [1]")
    if len(feature.shape) > _MAX_AXES:
        problems.append(f"has {len(feature.shape)} axes; LeRobot stores at most {_MAX_AXES}")
    if feature.names is not None and feature.is_numeric and name not in names.BOOKKEEPING:
        wanted = {feature.size, len(feature.shape)} if len(feature.shape) > 1 else {feature.size}
        if len(feature.names) not in wanted:
            problems.append(f"has {len(feature.names)} names for shape {list(feature.shape)}")
    return problems


def _visual_problems(feature: Feature) -> list[str]:
    if len(feature.shape) != 3:
        return [f"has shape {list(feature.shape)}; pictures have three axes"]
    problems = []
    if feature.image_shape[2] not in (1, 3, 4):
        problems.append(f"has {feature.image_shape[2]} channels; pictures have 1, 3 or 4")
    if feature.names is None or len(feature.names) != 3:
        problems.append("does not name its axes: height, width and channels in their order")
    return problems
