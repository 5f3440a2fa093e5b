"""One dataset repo on the Hub: its versions, its files, and fetching some of them."""

import glob
import logging
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from leray.data.hub.errors import hub_errors_told
from leray.data.hub.local import Cache, missing
from leray.data.lerobot import layout
from leray.errors import DatasetError

DATASET = "dataset"
"""The `repo_type` of all calls."""
CARD = "README.md"
"""The page that describes a dataset."""
UNVERSIONED = "main"
"""The revision read when a repo has no version tag."""

_VERSION = re.compile(r"v\d+\.\d+")
MOST_PATTERNS = 100
"""`snapshot_download` matches each pattern with each file; beyond this, files are named singly."""
_DOWNLOADS_AT_ONCE = 8

logger = logging.getLogger(__name__)


def hub_api(token: str | None) -> HfApi:
    """Return the client; without a token it takes `HF_TOKEN` or the one of `hf auth login`."""
    return HfApi(token=token, library_name="leray")


class HubRepo:
    """Reads one dataset repo; every error names the repo and says what to do."""

    def __init__(self, repo_id: str, token: str | None) -> None:
        self.repo_id = repo_id
        """`user/name`."""
        self._api = hub_api(token)

    def choose_version(self) -> str:
        """Return the revision to read: the tag or branch of the newest version we read.

        A repo without any version tag is read at `main`, with a warning.

        Raises:
            DatasetError: there are only versions that cannot be read, or the Hub refuses.
        """
        names = self._revisions()
        versions = {_number(name): name for name in names if _VERSION.fullmatch(name)}
        oldest, newest = _number(layout.VERSIONS[0]), _number(layout.VERSIONS[-1])
        readable = [version for version in versions if oldest <= version <= newest]
        if readable:
            return versions[max(readable)]
        if versions:
            raise DatasetError(
                f"{self.repo_id} is on the Hub as {', '.join(sorted(versions.values()))}; readable "
                f"are {', '.join(layout.VERSIONS)}: update LeRay, or name another revision"
            )
        logger.warning(
            "%s has no version tag on the Hub; its branch main is taken, which may change at any "
            "time: ask its owner for a tag, or name a revision",
            self.repo_id,
        )
        return UNVERSIONED

    def _revisions(self) -> list[str]:
        with hub_errors_told(self.repo_id):
            refs = self._api.list_repo_refs(self.repo_id, repo_type=DATASET)
        return [ref.name for ref in (*refs.tags, *refs.branches)]

    def commit_of(self, revision: str) -> str:
        """Return the commit that a branch, tag or commit names.

        Raises:
            DatasetError: there is no such revision, or the Hub refuses.
        """
        try:
            with hub_errors_told(self.repo_id):
                info = self._api.dataset_info(self.repo_id, revision=revision)
        except DatasetError as error:
            if isinstance(error.__cause__, RevisionNotFoundError):
                raise DatasetError(
                    f"{self.repo_id} has no revision {revision!r}; "
                    f"there are: {', '.join(self._revisions())}"
                ) from error
            raise
        return str(info.sha)

    def files(self, commit: str) -> dict[str, RepoFile]:
        """Return the files of a commit by name.

        Raises:
            DatasetError: a name would lead out of the dataset's folder, or the Hub refuses.
        """
        with hub_errors_told(self.repo_id):
            entries = list(
                self._api.list_repo_tree(
                    self.repo_id, recursive=True, revision=commit, repo_type=DATASET
                )
            )
        files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        for name in files:
            _check_name(self.repo_id, name)
        return files

    def fetch(
        self,
        wanted: Collection[str],
        files: Mapping[str, RepoFile],
        commit: str,
        *,
        cache: Cache,
        into: Path | None,
    ) -> None:
        """Bring files here; those that are already here are not touched.

        Args:
            wanted: names of files, each one of `files`.
            files: all files of the commit.
            commit: the commit to take them from.
            cache: the dataset's cache, which they go to by default.
            into: another folder for them.

        Raises:
            DatasetError: the Hub refuses or does not answer, or there is no space; complete files
                are kept.
        """
        folder = into or cache.snapshot(commit)
        lacking = missing(folder, wanted)
        if not lacking:
            return
        _check_space(self.repo_id, folder, [files[name] for name in lacking], cache)
        patterns = patterns_of(lacking, files)
        with hub_errors_told(self.repo_id, folder=folder):
            if len(patterns) > MOST_PATTERNS:
                self._fetch_each(lacking, commit, cache, into)
            else:
                self._api.snapshot_download(
                    self.repo_id,
                    repo_type=DATASET,
                    revision=commit,
                    cache_dir=cache.folder,
                    local_dir=into,
                    allow_patterns=patterns,
                )
        if absent := missing(folder, lacking):
            raise DatasetError(
                f"{self.repo_id}: {len(absent)} files did not arrive, the first is {absent[0]}; "
                "pull again, complete files are kept"
            )

    def _fetch_each(self, names: list[str], commit: str, cache: Cache, into: Path | None) -> None:
        def fetch(name: str) -> None:
            hf_hub_download(
                self.repo_id,
                name,
                repo_type=DATASET,
                revision=commit,
                token=self._api.token,
                endpoint=self._api.endpoint,
                library_name=self._api.library_name,
                tqdm_class=_NoBar,
                cache_dir=cache.folder,
                local_dir=into,
            )

        pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE)
        try:
            bar: Any = tqdm(total=len(names), desc=f"Fetching {len(names)} files")  # type: ignore[no-untyped-call]
            with bar:
                for done in as_completed([pool.submit(fetch, name) for name in names]):
                    done.result()
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


class _NoBar(tqdm):
    """The progress bar of one file among many: not shown."""

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **{**options, "disable": True})  # type: ignore[no-untyped-call]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.removeprefix("v").split(".")))


def patterns_of(wanted: Collection[str], files: Collection[str]) -> list[str]:
    """Return few glob patterns that match exactly the wanted ones among all files.

    A folder all of whose files are wanted becomes one pattern.
    """
    total = Counter(folder for name in files for folder in _folders(name))
    taken = Counter(folder for name in wanted for folder in _folders(name))
    patterns: dict[str, None] = {}
    for name in wanted:
        whole = (folder for folder in _folders(name) if taken[folder] == total[folder])
        folder = next(whole, None)
        patterns[glob.escape(name) if folder is None else f"{glob.escape(folder)}*"] = None
    return list(patterns)


def _folders(name: str) -> Iterator[str]:
    """Yield the folders a file is in, from the topmost: `""`, `"data/"`, `"data/chunk-000/"`."""
    yield ""
    yield from (name[: end + 1] for end, sign in enumerate(name) if sign == "/")


def _check_name(repo_id: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or set(name) & set("\\\0") or str(path) != name:
        raise DatasetError(
            f"{repo_id} lists the file {name!r}, which leads out of the dataset's folder; "
            "nothing was downloaded, do not trust this dataset"
        )


def _check_space(repo_id: str, folder: Path, lacking: list[RepoFile], cache: Cache) -> None:
    """Refuse what cannot fit; content that the cache has under another commit costs nothing."""
    needed = sum(
        file.size
        for file in lacking
        if not cache.has_content(file.lfs.sha256 if file.lfs else file.blob_id)
    )
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DatasetError(
            f"{repo_id} needs {needed / 2**30:.1f} GiB more at {folder}, free are "
            f"{free / 2**30:.1f} GiB; free some, or pull fewer episodes or no videos"
        )
