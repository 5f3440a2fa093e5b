"""From a dataset's name on the Hub to a folder on this machine."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from leray.data.hub.errors import HubUnreachableError, check_repo_id
from leray.data.hub.local import (
    RECORD,
    Cache,
    Record,
    Request,
    claim,
    lerobot_home,
    read_record,
)
from leray.data.hub.remote import CARD, UNVERSIONED, HubRepo
from leray.data.lerobot import layout
from leray.errors import DatasetError

logger = logging.getLogger(__name__)


def resolve(
    repo_id: str,
    *,
    root: str | Path | None = None,
    revision: str | None = None,
    episodes: Sequence[int] | None = None,
    download_videos: bool = True,
    token: str | None = None,
    force_cache_sync: bool = False,
) -> Path:
    """Return the folder of a dataset, downloading what is not here yet.

    A dataset that is at `root`, or by default at `$HF_LEROBOT_HOME/<repo_id>`, is used as it is.
    Otherwise it is downloaded into `root`, or into the cache `$HF_LEROBOT_HOME/hub`, which keeps
    every commit apart. Files that are here are never changed or removed: an interrupted download
    goes on where it ended, and a folder that was pulled gains what is asked for in addition, from
    the commit it belongs to. Without network, what was pulled before is used.

    Args:
        repo_id: the dataset's name, `user/name`.
        root: the folder to use or to make.
        revision: branch, tag or commit; by default the newest format version that we read.
        episodes: download only what these episodes need; all when None.
        download_videos: whether to download the cameras' files.
        token: access token; by default `HF_TOKEN`, or that of `hf auth login`.
        force_cache_sync: ask the Hub even when the dataset is here.

    Raises:
        DatasetError: the dataset is neither here nor can it be had; one line says why.
    """
    check_repo_id(repo_id)
    _check_revision(revision)
    request = Request(None if episodes is None else tuple(episodes), videos=download_videos)
    folder = lerobot_home() / repo_id if root is None else Path(root).expanduser()
    record = read_record(folder / RECORD, repo_id)
    if revision is None and not force_cache_sync and _is_enough(folder, record, request):
        return folder
    if record is not None and revision is None and not force_cache_sync:
        revision = record.commit
    into = folder if root is not None or record is not None else None
    try:
        return _download(HubRepo(repo_id, token), revision, request, into)
    except HubUnreachableError as error:
        copy = _copy_here(repo_id, revision, request, into)
        if copy is None:
            raise DatasetError(f"{error} (what is asked for is not on this machine)") from error
        logger.warning("%s; the copy at %s is used", error, copy)
        return copy


def _check_revision(revision: str | None) -> None:
    if revision is None:
        return
    path = PurePosixPath(revision)
    if not revision.strip() or path.is_absolute() or ".." in revision or "\\" in revision:
        raise DatasetError(f"revision {revision!r} is no branch, tag or commit")


def _is_enough(folder: Path, record: Record | None, request: Request) -> bool:
    """Tell whether a folder can be used with no question to the Hub."""
    if record is None:
        return (folder / layout.INFO).is_file()
    return request.is_met(folder, record.absent)


def _download(repo: HubRepo, revision: str | None, request: Request, into: Path | None) -> Path:
    """Fetch metadata, then what the request needs by that metadata."""
    revision = revision or repo.choose_version()
    commit = repo.commit_of(revision)
    known = None if into is None else read_record(into / RECORD, repo.repo_id)
    if into and known and known.commit == commit and request.is_met(into, known.absent):
        return into  # also when it was edited since: what it lacks by design stays away
    files = repo.files(commit)
    if layout.INFO not in files:
        raise DatasetError(
            f"{repo.repo_id} at {revision} is no LeRobot dataset: it has no {layout.INFO}; "
            "check the name, or name another revision"
        )
    record = Record(repo.repo_id, revision, commit)
    cache = Cache(repo.repo_id)
    if into is not None:
        claim(into, record)

    def fetch(wanted: Iterable[str]) -> None:
        visible = [name for name in wanted if name in files and "/." not in f"/{name}"]
        repo.fetch(visible, files, commit, cache=cache, into=into)

    folder = into or cache.snapshot(commit)
    metadata = [name for name in files if name.startswith("meta/") and name != layout.INFO]
    fetch([*metadata, CARD])
    fetch([layout.INFO])
    record = replace(record, absent=_absent(folder, record, files))
    if into is None:
        cache.remember(record)
    else:
        claim(into, record)
    if request.episodes is None:
        fetch(name for name in files if request.videos or not name.startswith("videos/"))
    else:
        fetch(request.files(folder))
    return folder


def _absent(folder: Path, record: Record, files: Collection[str]) -> tuple[str, ...]:
    """Return the files that the metadata names and the Hub does not have.

    Raises:
        DatasetError: the metadata cannot be read, which shows here before gigabytes follow.
    """
    named = Request(episodes=None, videos=True).files(folder)
    absent = tuple(name for name in named if name not in files)
    if absent:
        logger.warning(
            "%s at %s lacks %d files on the Hub that its metadata names, the first is %s",
            record.repo_id,
            record.revision,
            len(absent),
            absent[0],
        )
    return absent


def _copy_here(
    repo_id: str, revision: str | None, request: Request, into: Path | None
) -> Path | None:
    """Return a folder pulled earlier that has what is asked for."""
    if into is not None:
        record = read_record(into / RECORD, repo_id)
        if record is None or revision not in (None, record.revision, record.commit):
            return None
        return into if request.is_met(into, record.absent) else None
    names = [*reversed(layout.VERSIONS), UNVERSIONED] if revision is None else [revision]
    cache = Cache(repo_id)
    folders = [folder for name in names if (folder := cache.find(name)) is not None]
    met = (folder for folder in folders if request.is_met(folder, cache.absent(folder.name)))
    return next(met, None)
