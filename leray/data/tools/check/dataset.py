"""The whole check of one dataset folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from leray.data.lerobot.metadata import read_metadata
from leray.data.tools.check.contents import Contents, local_folder, read_contents
from leray.data.tools.check.episodes import check_episodes
from leray.data.tools.check.findings import Findings, Report, make_report
from leray.data.tools.check.metadata import check_features, check_info, check_splits, check_totals
from leray.data.tools.check.orphans import check_orphans
from leray.data.tools.check.pictures import check_pictures
from leray.data.tools.check.rows import RowCheck
from leray.data.tools.check.statistics import EpisodeStatisticsCheck, check_statistics
from leray.data.tools.check.stored_statistics import episode_statistics_exist, read_stored
from leray.data.tools.check.tables import Arrays, Piece, check_tables
from leray.data.tools.check.tasks import check_tasks
from leray.data.tools.check.values import ValueCheck
from leray.data.tools.check.videos import check_videos
from leray.errors import DatasetError

Progress = Callable[[str, int, int], None]
"""Called with what is being read, the number of files done, and of all."""

Depth = Literal["fast", "full", "none"]


def check(
    root: str | Path,
    *,
    videos: Depth = "fast",
    tolerance_s: float = 1e-4,
    progress: Progress | None = None,
) -> Report:
    """Check a dataset of version 2.0, 2.1 or 3.0 against the format; nothing is changed.

    Every number of every column is looked at once, in batches of bounded size. Nothing that the
    dataset holds is executed or unpickled.

    Args:
        root: the dataset's local folder.
        videos: how closely pictures are looked at: `none` only asks whether the files are there,
            `fast` reads the videos' lists of frames and decodes some embedded pictures, `full`
            decodes everything.
        tolerance_s: by how much a timestamp, of a row or of a video frame, may be off.
        progress: called now and then.

    Raises:
        DatasetError: the folder is not on this machine.
    """
    folder = local_folder(root)
    findings, summary = Findings(), ""
    tell = progress or (lambda _what, _done, _total: None)
    try:
        contents = read_contents(folder, findings)
        if contents is not None:
            summary = _summary(contents)
            _check_metadata(contents, findings)
            _check_data(contents, findings, tolerance_s, tell)
            _check_pictures(contents, findings, videos, tolerance_s, tell)
            check_orphans(contents, findings)
            _check_opens(folder, findings)
    except OSError as error:
        findings.error("unusable", f"a file cannot be read: {error}", blocks=True)
    return make_report(folder, summary, findings)


def _check_metadata(contents: Contents, findings: Findings) -> None:
    check_info(contents, findings)
    check_totals(contents, findings)
    check_splits(contents, findings)
    if contents.is_complete:
        check_features(contents, findings)
    for part in (check_tasks, check_episodes):
        try:
            part(contents, findings)
        except DatasetError as error:
            findings.error("metadata", str(error))


def _check_data(
    contents: Contents, findings: Findings, tolerance_s: float, progress: Progress
) -> None:
    """Read all rows once, for everything that needs them."""
    stored = read_stored(contents, findings)
    rows = RowCheck(contents, findings, tolerance_s)
    values = ValueCheck(contents, findings, stored or {})
    of_episodes = None
    if episode_statistics_exist(contents):
        of_episodes = EpisodeStatisticsCheck(contents, findings, values)
    elif contents.version != "v2.0" and len(contents.episodes):
        message = "there are no statistics of single episodes"
        findings.error("episode-statistics", message, repairable=True)

    def take(piece: Piece, arrays: Arrays) -> None:
        rows.take(piece, arrays)
        values.take(piece, arrays)
        if of_episodes is not None:
            of_episodes.take(piece, arrays)

    check_tables(contents, findings, take, partial(progress, "data"))
    values.finish()
    if of_episodes is not None:
        of_episodes.finish()
    check_statistics(contents, findings, stored, values)


def _check_pictures(
    contents: Contents,
    findings: Findings,
    videos: Depth,
    tolerance_s: float,
    progress: Progress,
) -> None:
    if videos != "none":
        check_pictures(contents, findings, depth=videos, progress=partial(progress, "pictures"))
    check_videos(
        contents,
        findings,
        depth=videos,
        tolerance_s=tolerance_s,
        progress=partial(progress, "videos"),
    )


def _check_opens(root: Path, findings: Findings) -> None:
    """Make sure that a dataset which cannot be opened is never called usable."""
    if findings.blocks:
        return
    try:
        read_metadata(root)
    except DatasetError as error:
        findings.error("unusable", str(error), blocks=True)


def _summary(contents: Contents) -> str:
    pictures = [name for name, feature in contents.features.items() if feature.is_visual]
    parts: list[Any] = [
        contents.version,
        f"{len(contents.episodes):,} episodes",
        f"{contents.episodes.frames:,} frames",
        f"{contents.fps:g} fps",
        f"{len(pictures)} cameras" if len(pictures) != 1 else "1 camera",
    ]
    return ", ".join(parts)
