"""One call that makes new v3.0 datasets of chosen episodes of others, all of them or none."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leray.data.tools.rewriting.source import Source
from leray.data.tools.rewriting.target import Progress, RewriteOptions, Target
from leray.data.tools.rewriting.work_folder import check_free, work_folder
from leray.errors import DatasetError

_SCRATCH = ".scratch"


@dataclass(frozen=True)
class Rewritten:
    """A dataset that `rewrite` has made."""

    folder: Path
    num_episodes: int
    num_frames: int
    notes: list[str]
    """What a person should know, one line each."""


def rewrite(
    output: Path,
    datasets: Mapping[str, Sequence[Source]],
    options: RewriteOptions | None = None,
    *,
    old: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Rewritten]:
    """Make new v3.0 datasets; the sources stay untouched.

    Videos and pictures are copied as they are stored. Frames are encoded anew only where an episode
    begins or ends between key frames, or where `options` ask for it. Statistics of numbers are
    computed, those of pictures taken over where they are sound.

    `output` appears when everything is complete. After a kill or on a full disk, the same call goes
    on with the videos that are ready.

    Args:
        output: the folder to make; it does not exist yet, or is empty.
        datasets: per name of a dataset, what it is made of, in order; the name "" stands for
            `output` itself, others for folders in it.
        options: how to write; the defaults when None.
        old: where to move what is at `output`; when None, nothing may be there.
        on_progress: told now and then how much is done, and how much there is to do.

    Returns:
        What was made, by name.

    Raises:
        DatasetError: a source is damaged or has no episodes, sources do not fit together, `output`
            is in use, or the disk is full.
        FeatureMismatchError: the features of sources differ.
    """
    output, options = output.absolute(), options or RewriteOptions()
    check_free(output if old is None else old)
    for source in (source for sources in datasets.values() for source in sources):
        if source.metadata.root.absolute() in output.parents:
            raise DatasetError(
                f"{output} lies inside the dataset {source.metadata.root}; give a folder elsewhere"
            )
    targets = {name: Target(sources, options) for name, sources in datasets.items()}
    progress = Progress(on_progress, sum(target.steps for target in targets.values()))
    for target in targets.values():
        target.find_clips(progress)
    made = {}
    with work_folder(output, _purpose(targets), old=old) as work:
        for name, target in targets.items():
            written = target.write(work / name, work / _SCRATCH / name, progress)
            notes = target.notes(written)
            made[name] = Rewritten(output / name, written.num_episodes, written.num_frames, notes)
        shutil.rmtree(work / _SCRATCH, ignore_errors=True)
    return made


def _purpose(targets: Mapping[str, Target]) -> str:
    plan = {name: target.purpose() for name, target in targets.items()}
    content = json.dumps(plan, sort_keys=True).encode()
    return json.dumps({"sha256": hashlib.sha256(content).hexdigest()})
