"""From a folder on this machine to a dataset on the Hub."""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RevisionNotFoundError

from leray.data.hub.card import dataset_card
from leray.data.hub.errors import check_repo_id, hub_errors_told
from leray.data.hub.remote import CARD, DATASET, hub_api, patterns_of
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

_METADATA_AND_DATA = ("meta/*", "data/*")
_VIDEOS = ("videos/*",)
_TEMPORARY = (".*", "*/.*", "*.tmp", "*.orphan")
"""What an interrupted save leaves, and caches: never published."""

logger = logging.getLogger(__name__)


def push(
    root: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    tags: Sequence[str] = (),
    license: str = "apache-2.0",
    push_videos: bool = True,
    token: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    commit_message: str | None = None,
) -> str:
    """Publish a dataset folder on the Hub and return the address of the commit.

    The repo is made if there is none. Afterwards its `meta/`, `data/` and `videos/` are those of
    the folder: files that the folder has no more are removed from the branch (its history keeps
    them). Last, the tag of the dataset's format version (`v3.0`), which readers go by, moves to the
    new commit; until then they see what was there before. An interrupted push is finished by
    pushing again: what has arrived is not sent twice.

    Args:
        root: the dataset's folder.
        repo_id: name on the Hub, `user/name`.
        private: make the repo private; a repo that is already public is refused.
        branch: branch to commit to; `main` when None.
        tags: further tags of the dataset card.
        license: the dataset card's licence, by the Hub's identifier.
        push_videos: whether to publish the cameras' files; without, those on the Hub stay.
        token: access token that may write; by default `HF_TOKEN`, or that of `hf auth login`.
        allow_patterns: publish only the files that match one of these, and remove none.
        commit_message: first line of the commit.

    Raises:
        DatasetError: the folder holds no readable, whole dataset, or the Hub refuses.
    """
    check_repo_id(repo_id)
    dataset = DatasetReader.open(Path(root).expanduser())
    published = (*_METADATA_AND_DATA, *(_VIDEOS if push_videos else ()), CARD)
    names = [
        path.relative_to(dataset.root).as_posix()
        for path in dataset.root.rglob("*")
        if path.is_file()
    ]
    patterns = _chosen(names, published, allow_patterns)
    replaced = None if allow_patterns else _replaced(dataset, set(names), push_videos=push_videos)
    api = hub_api(token)
    with hub_errors_told(repo_id, folder=dataset.root):
        repo_id = _make_repo(api, repo_id, branch, private=private)
        if not (dataset.root / CARD).is_file():
            card = dataset_card(dataset.metadata, repo_id, license_name=license, tags=tags)
            _add_card(api, repo_id, branch, card)
        commit = api.upload_folder(
            folder_path=dataset.root,
            repo_id=repo_id,
            repo_type=DATASET,
            revision=branch,
            allow_patterns=patterns,
            delete_patterns=replaced,
            commit_message=commit_message
            or f"Upload {dataset.num_episodes} episodes, {dataset.num_frames} frames",
        )
        _move_tag(api, repo_id, dataset.version, commit.oid)
    return commit.commit_url


def _chosen(
    names: Collection[str], published: Sequence[str], allow_patterns: Sequence[str] | None
) -> list[str]:
    """Return glob patterns that match, among a folder's files, those to publish."""
    chosen = [
        name
        for name in names
        if _matches(name, published)
        and not _matches(name, _TEMPORARY)
        and (not allow_patterns or _matches(name, allow_patterns))
    ]
    if not chosen:
        raise DatasetError(f"no file to publish matches {', '.join(allow_patterns or published)}")
    return patterns_of(chosen, names)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _replaced(dataset: DatasetReader, names: Collection[str], *, push_videos: bool) -> list[str]:
    """Return glob patterns of what the push replaces on the Hub.

    A camera without any file, declared only or not pulled, is left out: as nothing is known of its
    files, no video is removed from the Hub.

    Raises:
        DatasetError: files are missing, so that the push would publish a part of a dataset.
    """
    episodes = dataset.metadata.episodes
    lacking = [name for name in episodes.files if name not in names]
    replace_videos = push_videos
    for camera, videos in episodes.videos.items() if push_videos else ():
        gone = [name for name in videos.files if name not in names]
        behind_links = any((dataset.root / name).is_file() for name in gone)
        if len(gone) < len(videos.files) or behind_links:
            lacking += gone
        else:
            logger.warning("camera %s has no files here; none are published", camera)
            replace_videos = False
    if lacking:
        raise DatasetError(
            f"{dataset.root} lacks {len(lacking)} files that its metadata names, the first is "
            f"{lacking[0]}: pull the whole dataset first, put files in place of links to folders, "
            "or push without videos"
        )
    return [*_METADATA_AND_DATA, *(_VIDEOS if replace_videos else ())]


def _make_repo(api: HfApi, repo_id: str, branch: str | None, *, private: bool) -> str:
    """Make the repo and its branch where they do not exist, and return the repo's full name."""
    full_name = api.create_repo(repo_id, repo_type=DATASET, private=private, exist_ok=True).repo_id
    if private and not api.dataset_info(full_name).private:
        raise DatasetError(
            f"{full_name} is public on the Hub; make it private there, or push without private"
        )
    if branch is not None:
        api.create_branch(full_name, branch=branch, repo_type=DATASET, exist_ok=True)
    return full_name


def _add_card(api: HfApi, repo_id: str, branch: str | None, card: str) -> None:
    """Give the repo a card, unless somebody wrote one there."""
    if api.file_exists(repo_id, CARD, repo_type=DATASET, revision=branch):
        return
    api.upload_file(
        path_or_fileobj=card.encode(),
        path_in_repo=CARD,
        repo_id=repo_id,
        repo_type=DATASET,
        revision=branch,
        commit_message="Describe the dataset",
    )


def _move_tag(api: HfApi, repo_id: str, tag: str, commit: str) -> None:
    with suppress(RevisionNotFoundError):  # the first push
        api.delete_tag(repo_id, tag=tag, repo_type=DATASET)
    api.create_tag(repo_id, tag=tag, revision=commit, repo_type=DATASET)
