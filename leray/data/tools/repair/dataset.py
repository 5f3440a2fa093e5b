"""The whole repair of one dataset folder."""

from functools import partial
from pathlib import Path

from leray.data.tools.check.contents import Contents, local_folder, read_contents
from leray.data.tools.check.dataset import Depth, Progress, check
from leray.data.tools.check.findings import Findings, Report
from leray.data.tools.repair.episodes import mend_episodes
from leray.data.tools.repair.features import mend_counters, mend_features
from leray.data.tools.repair.rows import mend_rows
from leray.data.tools.repair.statistics import mend_statistics
from leray.data.tools.repair.strays import mend_strays
from leray.data.tools.repair.tasks import mend_tasks
from leray.data.tools.repair.workshop import Workshop
from leray.errors import DatasetError

_STRAYS = {"leftover", "orphan"}
_TASKS = {"tasks", "task_index"}
_ROWS = {"index", "frame_index", "episode_index", "timestamp", "bookkeeping", "schema"}
_FEATURES = {"absent", "bookkeeping", "column", "video-shape", "video-info"}
_EPISODES = {"range", "episodes", "episode-tasks", "video-span"}
_STATISTICS = {"statistics", "episode-statistics"}


def repair(
    root: str | Path,
    report: Report | None = None,
    *,
    videos: Depth = "fast",
    tolerance_s: float = 1e-4,
    progress: Progress | None = None,
) -> list[str]:
    """Mend what follows from the dataset itself; see `Report.repairable` for what that is.

    The old version of every changed file stays under `<root>/.leray-repair-<n>/`. A kill leaves
    every file old or new; another repair goes on.

    Args:
        root: the dataset's local folder.
        report: what `check` found there; it is called when None.
        videos: how closely `check` looks at pictures, if it is called.
        tolerance_s: by how much a timestamp may be off.
        progress: called now and then.

    Returns:
        What was changed, and what could not be mended and why, one line each.

    Raises:
        DatasetError: the folder is not on this machine, or cannot be written.
    """
    folder = local_folder(root)
    tell = progress or (lambda _what, _done, _total: None)
    if report is None:
        report = check(folder, videos=videos, tolerance_s=tolerance_s, progress=progress)
    workshop = Workshop(folder)
    try:
        _mend(workshop, report.repairable(), tolerance_s, tell)
    except OSError as error:
        raise DatasetError(
            f"{folder}: the repair stopped ({error}); no file is lost or cut off, repair it again"
        ) from error
    if workshop.kept is not None:
        workshop.tell(f"the old files are in {workshop.kept}")
    return workshop.lines


def _mend(workshop: Workshop, codes: set[str], tolerance_s: float, progress: Progress) -> None:
    """Mend in an order in which each step can rest on those before."""
    try:
        _contents(workshop)
    except DatasetError as error:
        workshop.give_up(str(error))
        return
    if codes & _STRAYS:
        mend_strays(_contents(workshop), workshop)
    if codes & _TASKS:
        mend_tasks(_contents(workshop), workshop)
    is_renumbered = bool(codes & _ROWS) and mend_rows(_contents(workshop), workshop, tolerance_s)
    if codes & _FEATURES:
        mend_features(_contents(workshop), workshop)
    if codes & _EPISODES:
        mend_episodes(_contents(workshop), workshop, tolerance_s)
    if codes:
        mend_counters(_contents(workshop), workshop)
    if is_renumbered or codes & _STATISTICS:
        mend_statistics(workshop, partial(progress, "pictures for statistics"))


def _contents(workshop: Workshop) -> Contents:
    """Read the metadata as it stands after the steps so far.

    Raises:
        DatasetError: it cannot be read.
    """
    findings = Findings()
    contents = read_contents(workshop.root, findings)
    if contents is None:
        raise DatasetError(findings.kept[0].message)
    return contents
