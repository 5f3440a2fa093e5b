"""The home of a run's outputs: a local folder, or an object store that they are brought to.

`--output_dir=s3://bucket/runs/1` (any scheme that fsspec reaches) lets the run work in a folder of
this machine, and a thread brings what is complete to the store. There lie

* `run.json`: the index. It names the complete checkpoints with the size and digest of every file,
  and `last` and `best`; what it names is whole, whenever the run was killed;
* `checkpoints/<step>/`, `train_config.yaml`, `logs/`, `eval/`: as in a local run folder;
* `replay/blocks/`: the replay as it was at the newest checkpoint, in blocks by their digest;
* `run.lock`: who is running here.

On another machine, `--resume=true` gets back the config, the logs, the best checkpoint, the newest
one whose replay is there, and exactly that replay: on the sync clock training goes on as it would
have gone on here. What was collected after that checkpoint is lost with the machine, videos of
evaluations stay in the store only. On the same machine the local folder is used, with everything
in it, unless the run has gone on elsewhere meanwhile.
"""

import errno
import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leray.errors import ConfigError, LerayError
from leray.files import write_atomic
from leray.platform.home.fetch import fetch_run
from leray.platform.home.index import INDEX, NEXT_INDEX, Index, read_index
from leray.platform.home.lock import LOCK, RunLock
from leray.platform.home.mirror import Mirror
from leray.platform.home.scratch import SCRATCH_VARIABLE, Scratch
from leray.platform.home.store import Store, remote_url
from leray.platform.run_directory import TRAIN_CONFIG, RunDirectory

logger = logging.getLogger(__name__)


class Home:
    """A run's outputs in a local folder: nothing has to be brought anywhere.

    Args:
        local: the folder.
    """

    def __init__(self, local: Path) -> None:
        self.local = local
        """The folder the run works in."""
        self.address = str(local)
        """What `--output_dir` is to be given to go on with the run."""

    def finish(self) -> list[str]:
        """End; return what could not be brought home."""
        return []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish, however the body ended."""
        self.finish()


class StoreHome(Home):
    """A run's outputs in a store; `open_home` makes it.

    Args:
        store: the place.
        lock: its lock, held.
        index: what is there.
        scratch: the folder the run works in.
        keep: how many of the newest checkpoints are kept in the store; None is all.
        say: told what a person should know.
    """

    def __init__(
        self,
        store: Store,
        lock: RunLock,
        index: Index,
        scratch: Scratch,
        *,
        keep: int | None,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(scratch.folder)
        self.address = store.url
        self._lock, self._index, self._scratch, self._say = lock, index, scratch, say
        self._mirror = Mirror(store, lock, index, RunDirectory(scratch.folder), keep=keep)
        self._mirror.start()
        self._finished = False

    def finish(self) -> list[str]:
        """Bring what is left, wait for it while it moves on, and give the place free.

        Returns:
            What could not be brought; it is told too.
        """
        if self._finished:
            return []
        self._finished = True
        try:
            self._mirror.finish(self._say)
        finally:  # also when a person does not want to wait
            self._mirror.give_up()
            self._lock.release()
            left = self._mirror.left()
            if left:
                logger.warning(
                    "%s lacks %s: %s. It is kept in %s; `leray train --resume=true "
                    "--output_dir=%s` on this machine brings it.",
                    self.address, ", ".join(left), self._mirror.reason, self.local, self.address,
                )  # fmt: skip
        self._scratch.remember(self._index, at_home=not left)
        return left


def open_home(
    output_dir: Path | str,
    *,
    resume: bool = False,
    keep: int | None = None,
    say: Callable[[str], None] = print,
    filesystem: Any = None,
) -> Home:
    """Open the place that a run's outputs go to, and the local folder that it works in.

    Args:
        output_dir: a local path, or the URL of a place in a store.
        resume: go on with the run that is there; what this machine lacks is fetched.
        keep: how many of the newest checkpoints are kept in the store, beside those that are the
            last or the best; None keeps all.
        say: told what a person should know; by default it is printed.
        filesystem: an fsspec or pyarrow filesystem in which `output_dir` is a path.

    Raises:
        ConfigError: the store cannot be used, the place is in use, there is a run and `resume` is
            false, or none and it is true.
        CheckpointError: what is to be fetched is damaged.
    """
    url = remote_url(output_dir)
    if url is None and filesystem is None:
        return Home(_local_path(output_dir))
    store = Store(url or str(output_dir), filesystem)
    lock, scratch = RunLock(store), Scratch(store.url)
    try:
        if not resume:
            _refuse_used(store)
        lock.acquire(say)
        index = _resumed(store, scratch, say) if resume else _begun(store, scratch)
        index.write(store)
        scratch.remember(index, at_home=False)
        scratch.remove_unused()
    except BaseException as error:
        lock.release()
        if isinstance(error, LerayError) or not isinstance(error, Exception):
            raise
        raise ConfigError(f"--output_dir={store.url}: {store.explain(error)}") from error
    say(f"outputs go to {store.url}, through {scratch.folder}")
    return StoreHome(store, lock, index, scratch, keep=keep, say=say)


def resumed_config(url: str, record: str = TRAIN_CONFIG) -> Path:
    """Return the config of the run at an address, as a local file.

    Args:
        url: the address.
        record: name of the file that a run's folder keeps its config in.

    Raises:
        ConfigError: there is no run, or the store cannot be used.
    """
    store = Store(url)
    scratch = Scratch(store.url)
    try:
        if scratch.is_ahead_of(read_index(store)):
            return scratch.folder / record
        content = store.read(record)
    except LerayError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"--output_dir={url}: no run to resume is there, nor here") from error
    except Exception as error:
        raise ConfigError(f"--output_dir={url}: {store.explain(error)}") from error
    file = scratch.folder.with_name(f"{scratch.folder.name}.{record}")
    write_atomic(file, content)
    return file


def _resumed(store: Store, scratch: Scratch, say: Callable[[str], None]) -> Index:
    """Return the index of the run to go on with, which is in the local folder then."""
    index, url = read_index(store), store.url
    if scratch.is_ahead_of(index):
        return index or scratch.index()
    if index is None:
        raise ConfigError(f"--output_dir={url}: no run to resume is there, nor here")
    if index.checkpoints and index.resume is None:
        raise ConfigError(
            f"--output_dir={url}: no checkpoint came there with its replay, so only the machine "
            f"that trained can go on; start a new run from its policy with --policy.path={url}"
        )
    index.writer = _new_id()
    say(f"fetching the run from {url}" + _first_step(index))
    work = scratch.work_folder()
    try:
        fetch_run(store, index, work)
        scratch.put_aside(say)
        scratch.remember(index, at_home=True)
        work.rename(scratch.folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{scratch.folder}: the disk is full: free space, or set {SCRATCH_VARIABLE} to "
            "a folder on another disk"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return index


def _first_step(index: Index) -> str:
    if index.resume is None:
        return ", which has no checkpoint yet"
    newer = f"; the replay of step {index.last} is not there" if index.last != index.resume else ""
    return f", to go on from step {index.resume}{newer}"


def _refuse_used(store: Store) -> None:
    """Refuse a place with a run in it; one that failed before it had a config is none."""
    if set(store.top()) - {LOCK, INDEX, NEXT_INDEX}:
        raise ConfigError(
            f"--output_dir={store.url}: exists and is not empty; choose another address, or give "
            "--resume=true to go on with the run in it"
        )


def _begun(store: Store, scratch: Scratch) -> Index:
    """Return the index of a new run, whose local folder is not there yet."""
    if scratch.config_file.is_file():
        raise ConfigError(
            f"--output_dir={store.url}: {scratch.folder} holds a run that is not there any more; "
            "remove that folder, or give --resume=true to go on with it"
        )
    shutil.rmtree(scratch.folder, ignore_errors=True)
    return Index(_new_id(), _new_id())


def _local_path(place: Path | str) -> Path:
    """Return a path; `file:` URLs have one, three or, made from a `Path`, one slash."""
    scheme, found, path = str(place).partition(":/")
    return Path(f"/{path.lstrip('/')}") if found and scheme in ("file", "local") else Path(place)


def _new_id() -> str:
    return uuid.uuid4().hex
