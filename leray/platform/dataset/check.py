"""`leray dataset check`: verify a dataset against the format, and mend what can be derived."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from leray.algorithms.config import require
from leray.data.tools.check.dataset import check
from leray.data.tools.repair.dataset import repair
from leray.errors import ConfigError
from leray.files import write_json
from leray.platform.dataset.steps import Steps

_SHOWN_LINES = 40
"""Lines of what a repair did that are printed; they name files, which may be many."""
_QUIET_S = 2.0
"""Shorter work shows no progress."""


@dataclass(kw_only=True)
class CheckConfig:
    """Everything `leray dataset check` is told."""

    root: Path | None = None
    """Local folder of the dataset (the one that holds `meta/info.json`)."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`, looked up on this machine and then on the Hub; not used
    where `root` is given."""
    repair: bool = False
    """Mend what follows from the dataset itself; the old files are kept in a folder beside the new
    ones, `.leray-repair-<n>`."""
    videos: Literal["fast", "full", "none"] = "fast"
    """How closely pictures are looked at: `none` asks only whether the files are there, `fast`
    reads the videos' lists of frames, `full` decodes every frame."""
    tolerance_s: float = 1e-4
    """By how many seconds a timestamp, of a row or of a video frame, may be off."""
    json: Path | None = None
    """File to write the findings to, replaced if it exists."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        require(
            self.root is not None or self.repo_id is not None,
            "no dataset given: say --root=<folder>, or --repo_id=<user/name>",
        )
        require(
            not self.repair or self.root is not None,
            "--repair=true needs --root=<folder>: what was pulled from the Hub stays as it is",
        )
        require(
            self.videos in ("fast", "full", "none"),
            f"--videos={self.videos}: allowed are fast, full, none",
        )
        require(
            math.isfinite(self.tolerance_s) and self.tolerance_s >= 0,
            f"--tolerance_s={self.tolerance_s}: give a number of seconds >= 0",
        )


def run(config: CheckConfig) -> int:
    """Print what is wrong where, and mend it if that is asked for.

    Returns:
        0 without errors and warnings, 1 with some, 2 when the dataset cannot be read; after a
        repair, of what is left.

    Raises:
        LerayError: there is no such dataset, or a file cannot be written.
    """
    root = config.root
    if root is None:
        from leray.data.hub.download import resolve

        assert config.repo_id is not None
        root = resolve(config.repo_id)
    with _Shown() as shown:
        report = check(root, videos=config.videos, tolerance_s=config.tolerance_s, progress=shown)
    if config.repair:
        with _Shown() as shown:
            lines = repair(root, report, tolerance_s=config.tolerance_s, progress=shown)
        _print_repair(lines)
        with _Shown() as shown:
            report = check(
                root, videos=config.videos, tolerance_s=config.tolerance_s, progress=shown
            )
    print(report.text())
    if config.json is not None:
        try:
            write_json(config.json, report.to_json())
        except OSError as error:
            raise ConfigError(f"--json={config.json} cannot be written: {error}") from error
    return report.exit_code


def _print_repair(lines: list[str]) -> None:
    print("repair:")
    for line in lines[:_SHOWN_LINES] or ["nothing to mend"]:
        print(f"  {line}")
    if len(lines) > _SHOWN_LINES:
        print(f"  and {len(lines) - _SHOWN_LINES} more")
    print()


class _Shown:
    """Shows the progress of one kind of work after the other."""

    def __init__(self) -> None:
        self._steps: Steps | None = None
        self._what = ""
        self._began = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._began < _QUIET_S or not total:
            return
        if what != self._what or self._steps is None:
            self._close()
            self._steps, self._what = Steps(), what
            print(f"{what}:")
        self._steps(done, total)

    def _close(self) -> None:
        if self._steps is not None:
            self._steps.__exit__(None, None, None)
            self._steps = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
