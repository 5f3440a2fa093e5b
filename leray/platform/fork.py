"""A run that goes on from where another run is."""

import shutil
from pathlib import Path

from leray.errors import CheckpointError
from leray.platform.run_directory import RunDirectory

ATTEMPTS = 5


def fork(donor: RunDirectory, run: RunDirectory) -> int:
    """Give a run the last checkpoint and the replay of another one, which may be training.

    What the run had of its own stays as older checkpoints, but for its replay.

    Args:
        donor: the run to go on from.
        run: the run that goes on; it must not be training.

    Returns:
        Step of the checkpoint.

    Raises:
        CheckpointError: the donor has no checkpoint, or the disk refuses the write.
    """
    for _ in range(ATTEMPTS):
        last = donor.last_checkpoint()
        if last is None:
            break
        try:
            with run.writing_checkpoint(last[0]) as temporary:
                shutil.copytree(last[1], temporary, dirs_exist_ok=True, symlinks=True)
                _copy_replay(donor.replay, run.replay)
        except CheckpointError:
            if last[1].exists():
                raise
            continue  # the donor has saved another one, and dropped this one meanwhile
        return last[0]
    raise CheckpointError(f"{donor.root}: this run has no complete checkpoint to go on from")


def _copy_replay(source: Path, target: Path) -> None:
    """Copy a ring of transitions; rows written meanwhile lie behind the checkpoint's cursor."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
