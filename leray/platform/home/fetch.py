"""From a store to this machine: a run to go on with, or the policy of one."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from leray.algorithms.hub import FILES
from leray.errors import CheckpointError, LerayError
from leray.platform.home.index import (
    INDEX,
    NEXT_INDEX,
    Index,
    StoredCheckpoint,
    is_safe,
    read_index,
)
from leray.platform.home.lock import LOCK
from leray.platform.home.replay import block_name, restore_replay
from leray.platform.home.scratch import UNUSED_S
from leray.platform.home.store import Store
from leray.platform.run_directory import BEST, CHECKPOINTS, LAST, PRETRAINED_MODEL

ATTEMPTS = 5
"""How often a checkpoint is fetched that a living run may delete meanwhile."""


def fetch_run(store: Store, index: Index, root: Path) -> None:
    """Fetch what going on with a run needs: config, logs, the last checkpoint, the best, replay.

    Args:
        store: the run's place.
        index: what is there; nobody else may be writing.
        root: the folder to make.

    Raises:
        CheckpointError: a file is damaged.
    """
    for name, is_file in store.top().items():
        if is_file and is_safe(name) and name not in (INDEX, NEXT_INDEX, LOCK):
            store.download(name, root / name)
    scores = [name for name, is_file in store.top("eval").items() if is_file]
    for name in filter(is_safe, [*store.files("logs"), *scores]):
        store.download(name, root / name)
    for link, step in ((LAST, index.resume), (BEST, index.best)):
        if step is not None:
            folder = root / CHECKPOINTS / f"{step:06d}"
            if not folder.exists():
                _download(store, index.checkpoints[step], folder)
            os.symlink(folder.name, folder.with_name(link))
    restore_replay(index.replay, root / "replay", lambda digest: store.read(block_name(digest)))


def fetch_policy(url: str) -> Path:
    """Return a local copy of a stored policy, kept in the cache and not to be written to.

    Args:
        url: a run, `<run>/checkpoints/<step>` (or `last`, `best`), or any folder that holds a
            policy.

    Raises:
        CheckpointError: there is none, it is damaged, or the store cannot be reached.
        ConfigError: the scheme is unknown or its package is not installed.
    """
    run_url, found, rest = (
        url.rstrip("/").removesuffix(f"/{CHECKPOINTS}").rpartition(f"/{CHECKPOINTS}/")
    )
    store = Store(run_url if found else rest)
    which = rest.partition("/")[0] if found else LAST
    with _told(store, url):
        for _ in range(ATTEMPTS):
            index = read_index(store)
            if index is None:
                return _plain_policy(Store(url), url)
            step = index.step_of(which)
            if step is None:
                known = ", ".join(f"{number:06d}" for number in sorted(index.checkpoints))
                raise CheckpointError(
                    f"{url}: this run has no complete checkpoint {which}"
                    + (f"; there are {known}" if known else " yet")
                )
            try:
                return _stored_policy(store, index.checkpoints[step])
            except FileNotFoundError:  # deleted since the index was read, which has changed
                continue
    raise CheckpointError(f"{url}: lacks files that its index names: the run was not brought whole")


def _stored_policy(store: Store, checkpoint: StoredCheckpoint) -> Path:
    prefix = f"{PRETRAINED_MODEL}/"
    files = {n: f for n, f in checkpoint.files.items() if n.startswith(prefix)}
    described = {name: file.sha256 for name, file in files.items()}
    only = StoredCheckpoint(checkpoint.folder, files)
    return _kept(described, lambda folder: _download(store, only, folder)) / PRETRAINED_MODEL


def _plain_policy(store: Store, url: str) -> Path:
    """Fetch a folder with a policy's files, as it would be opened on a local disk."""
    top = store.top()
    if "config.json" not in top:
        if PRETRAINED_MODEL in top:
            return _plain_policy(Store(f"{store.url}/{PRETRAINED_MODEL}"), url)
        raise CheckpointError(
            f"{url}: holds no policy, neither {INDEX} nor config.json; give a run, a checkpoint or "
            "a pretrained_model folder"
        )
    wanted = (*FILES, "train_config.json")
    names = [name for name in sorted(top) if any(fnmatch(name, pattern) for pattern in wanted)]
    described = {name: store.state(name) for name in names} | {"url": store.url}

    def fill(folder: Path) -> None:
        for name in names:
            store.download(name, folder / name)

    return _kept(described, fill)


def _kept(described: dict[str, str], fill: Callable[[Path], None]) -> Path:
    """Return the cached folder of what is described, filled now if it is not there."""
    from leray.data.stream.cache import cache_root

    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_root() / "policies" / key
    if folder.is_dir():
        os.utime(folder)
        return folder
    _remove_unused(folder.parent)
    work = folder.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
    try:
        work.mkdir(parents=True)
        fill(work)
        if not folder.is_dir():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _remove_unused(cache: Path) -> None:
    for folder in cache.iterdir() if cache.is_dir() else ():
        if time.time() - folder.stat().st_mtime > UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)


def _download(store: Store, checkpoint: StoredCheckpoint, folder: Path) -> None:
    """Fetch a checkpoint and compare every byte with the index."""
    for name, stored in checkpoint.files.items():
        path = folder / name
        store.download(f"{checkpoint.folder}/{name}", path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != stored.sha256:
            raise CheckpointError(
                f"{store.url}/{checkpoint.folder}/{name} is damaged ({path.stat().st_size} bytes "
                f"where {stored.size} were written): give another checkpoint"
            )


@contextmanager
def _told(store: Store, url: str) -> Iterator[None]:
    try:
        yield
    except LerayError:
        raise
    except Exception as error:
        raise CheckpointError(f"{url}: {store.explain(error)}") from error
