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
        _mend(workshop, report, tolerance_s, tell)
    except OSError as error:
        raise DatasetError(
            f"{folder}: the repair stopped ({error}); no file is lost or cut off, repair it again"
        ) from error
    if workshop.kept is not None:
        workshop.tell(f"the old files are in {workshop.kept}")
    return workshop.lines


def _mend(workshop: Workshop, report: Report, tolerance_s: float, progress: Progress) -> None:
    """Mend in an order in which each step can rest on those before."""
    codes = report.repairable()
    try:
        _contents(workshop)
    except DatasetError as error:
        workshop.give_up(str(error))
        return
    if codes & _STRAYS:
        mend_strays(_contents(workshop), workshop)
    if ("error", "rows") in report.counts:
        workshop.give_up(
            "the data files hold another number of rows than the episodes' lengths say; nothing "
            "that rests on either is changed"
        )
        return
    if codes & _TASKS:
        mend_tasks(_contents(workshop), workshop)
    trusts_fps = not _is_rate_refuted(report)
    if not trusts_fps:
        workshop.give_up(
            "frames advance at another rate than fps says, so that no time is changed; correct fps "
            "in meta/info.json if that is wrong"
        )
    is_renumbered = bool(codes & _ROWS) and mend_rows(_contents(workshop), workshop, tolerance_s)
    if codes & _FEATURES:
        mend_features(_contents(workshop), workshop, trusts_fps=trusts_fps)
    if codes & _EPISODES:
        _mend_episodes(workshop, report, tolerance_s, trusts_fps=trusts_fps)
    if codes:
        mend_counters(_contents(workshop), workshop)
    if is_renumbered or codes & _STATISTICS:
        mend_statistics(workshop, partial(progress, "pictures for statistics"))


def _mend_episodes(
    workshop: Workshop, report: Report, tolerance_s: float, *, trusts_fps: bool
) -> None:
    if _are_lengths_refuted(report):
        workshop.give_up("the episodes metadata: the frames contradict the lengths that it states")
    else:
        mend_episodes(_contents(workshop), workshop, tolerance_s, trusts_fps=trusts_fps)


def _are_lengths_refuted(report: Report) -> bool:
    """Tell whether rows say that they belong elsewhere than the episodes' lengths put them."""
    placing = [f for f in report.findings if f.code in ("episode_index", "frame_index")]
    return any(not finding.repairable for finding in placing)


def _is_rate_refuted(report: Report) -> bool:
    """Tell whether timestamps or videos say that the frame rate is another than declared."""
    return any(
        finding.code == "video-rate" or (finding.code == "timestamp" and not finding.repairable)
        for finding in report.findings
    )


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
