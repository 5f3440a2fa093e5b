"""From a dataset of any version to one of v3.0, without encoding videos anew."""

from collections.abc import Callable
from pathlib import Path

from leray.data.lerobot import layout
from leray.data.tools.rewriting.rewrite import Rewritten, rewrite
from leray.data.tools.rewriting.source import open_source
from leray.data.tools.rewriting.target import RewriteOptions
from leray.data.tools.rewriting.work_folder import finish_exchange
from leray.errors import DatasetError

OLD_SUFFIX = "_old"
"""Ends the name that a dataset converted in place keeps."""


def convert(
    root: Path,
    output: Path | None = None,
    options: RewriteOptions | None = None,
    *,
    repack: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rewritten:
    """Write a dataset anew as v3.0; see `rewrite` for what happens to its parts.

    Args:
        root: folder of a v2.0 or v2.1 dataset, or with `repack` of any version.
        output: the folder to make; None converts in place: the new dataset takes the name `root`,
            the old one is kept as `<root>_old`.
        options: size of files, how to encode videos.
        repack: also write a v3.0 dataset anew.
        on_progress: told now and then how much is done, and how much there is to do.

    Raises:
        DatasetError: there is no dataset or it is damaged, it is v3.0 already, the output is in
            use, or the disk is full.
    """
    root = root.absolute()
    old = root.with_name(root.name + OLD_SUFFIX) if output is None else None
    if old is not None and finish_exchange(root, old):
        reader = open_source(root).reader
        return Rewritten(root, reader.num_episodes, reader.num_frames, reader.findings)
    source = open_source(root)
    if source.metadata.version == layout.VERSIONS[-1] and not repack:
        raise DatasetError(
            f"{root} is {layout.VERSIONS[-1]} already; give --repack=true to write it anew"
        )
    target = root if output is None else output
    return rewrite(target, {"": [source]}, options, old=old, on_progress=on_progress)[""]
