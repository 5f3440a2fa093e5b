"""A run's folder: where its config, checkpoints, replay, evaluations and logs are."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leray.algorithms.hub import pretrained_folder
from leray.errors import CheckpointError, ConfigError
from leray.files import fsync_directory, write_atomic

TRAIN_CONFIG = "train_config.yaml"
CHECKPOINTS = "checkpoints"
PRETRAINED_MODEL = "pretrained_model"
TRAINING_STATE = "training_state"
LAST = "last"
BEST = "best"
WRITING = ".tmp-"
REPLACED = ".replaced-"


class RunDirectory:
    """The layout of one run on disk; holds paths only, so it is cheap to make anywhere.

    Args:
        root: The run's folder. Use `create` to make it or to reopen it for resuming.
        address: What `--output_dir` is to be given to go on with the run, if that is not the
            folder: it may be a copy of what an object store holds.
    """

    def __init__(self, root: Path, address: str | None = None) -> None:
        self.root = Path(root)
        self.address = address or str(root)
        self.checkpoints = self.root / CHECKPOINTS
        self.replay = self.root / "replay"
        self.eval = self.root / "eval"
        self.logs = self.root / "logs"
        self.config_file = self.root / TRAIN_CONFIG

    @classmethod
    def create(
        cls, root: Path, *, resume: bool = False, address: str | None = None
    ) -> "RunDirectory":
        """Make a new run's folders, or reopen those of a run that is to go on.

        Reopening clears away what an interrupted checkpoint left behind.

        Raises:
            ConfigError: the folder is in use and `resume` is false, or holds no run and it is true.
        """
        run = cls(root, address)
        if resume:
            if not run.config_file.is_file():
                raise ConfigError(f"{root}: no run to resume, {TRAIN_CONFIG} is not there")
        elif run.root.exists() and (not run.root.is_dir() or any(run.root.iterdir())):
            raise ConfigError(
                f"--output_dir={root}: exists and is not empty; choose another folder, "
                "or give --resume=true to go on with the run in it"
            )
        for folder in (run.checkpoints, run.replay, run.eval, run.logs):
            folder.mkdir(parents=True, exist_ok=True)
        run._clear_interrupted()
        return run

    def save_config(self, text: str) -> None:
        """Write the resolved config (YAML text) to `train_config.yaml`, atomically."""
        write_atomic(self.config_file, text.encode())

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step, whether or not it exists."""
        return self.checkpoints / f"{step:06d}"

    def list_checkpoints(self) -> list[tuple[int, Path]]:
        """Return step and folder of every complete checkpoint, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        found = [
            (int(folder.name), folder)
            for folder in self.checkpoints.iterdir()
            if folder.name.isdecimal() and folder.is_dir()
        ]
        return sorted(found)

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """Return step and folder of the checkpoint to resume from, or None before the first.

        That is the one `last` points to; where the link is missing or dangles, the newest.
        """
        complete = self.list_checkpoints()
        return self._linked(LAST) or (complete[-1] if complete else None)

    def best_checkpoint(self) -> tuple[int, Path] | None:
        """Return step and folder of the checkpoint that `best` points to, or None."""
        return self._linked(BEST)

    def mark_best(self, step: int) -> None:
        """Point `best` at the checkpoint of a step, which is there.

        Raises:
            CheckpointError: the disk refuses the write.
        """
        try:
            self._link(BEST, self.checkpoint(step))
            fsync_directory(self.checkpoints)
        except OSError as error:
            raise CheckpointError(
                f"{self.checkpoints / BEST}: not written: {error.strerror or error}"
            ) from error

    @contextmanager
    def writing_checkpoint(self, step: int) -> Iterator[Path]:
        """Give a temporary folder to fill; on success it becomes the checkpoint of `step`.

        The files are flushed to disk, the folder is renamed and `last` is pointed at it. When the
        body raises, the temporary folder is removed and earlier checkpoints are untouched.

        Raises:
            CheckpointError: the disk is full or refuses the write.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoints / f"{WRITING}{step:06d}-{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir()
            yield temporary
            _fsync_tree(temporary)
            self._install(temporary, self.checkpoint(step))
        except OSError as error:
            raise CheckpointError(
                f"{self.checkpoint(step)}: checkpoint not written: {error.strerror or error}; "
                "earlier checkpoints are untouched"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def prune(self, keep: int | None) -> list[Path]:
        """Delete all but the newest `keep` checkpoints; return what was deleted.

        Those that `last` and `best` point to always stay. `None` keeps all.
        """
        if keep is None:
            return []
        complete = self.list_checkpoints()
        kept = {self.last_checkpoint(), self.best_checkpoint()}
        stale = complete[: max(len(complete) - max(keep, 1), 0)]
        removed = [checkpoint[1] for checkpoint in stale if checkpoint not in kept]
        for folder in removed:
            doomed = self.checkpoints / f"{WRITING}{folder.name}-{uuid.uuid4().hex[:8]}"
            folder.rename(doomed)  # a half-deleted checkpoint must not look complete
            shutil.rmtree(doomed, ignore_errors=True)
        return removed

    def _install(self, temporary: Path, final: Path) -> None:
        replaced = self.checkpoints / f"{REPLACED}{final.name}"
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        temporary.rename(final)
        self._link(LAST, final)
        fsync_directory(self.checkpoints)
        shutil.rmtree(replaced, ignore_errors=True)

    def _link(self, name: str, checkpoint: Path) -> None:
        """Point a relative link at a checkpoint, whatever it pointed to before."""
        link = self.checkpoints / f"{WRITING}{name}-{uuid.uuid4().hex[:8]}"
        link.symlink_to(checkpoint.name)
        link.replace(self.checkpoints / name)

    def _linked(self, name: str) -> tuple[int, Path] | None:
        """Return the complete checkpoint that a link points to, or None."""
        link = self.checkpoints / name
        target = os.readlink(link) if link.is_symlink() else None
        return next((one for one in self.list_checkpoints() if one[1].name == target), None)

    def _clear_interrupted(self) -> None:
        for leftover in self.checkpoints.glob(f"{WRITING}*"):
            if leftover.is_symlink():
                leftover.unlink()
            else:
                shutil.rmtree(leftover, ignore_errors=True)
        for replaced in self.checkpoints.glob(f"{REPLACED}*"):
            final = self.checkpoints / replaced.name.removeprefix(REPLACED)
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(final)


def run_of(config_file: Path, record: str = TRAIN_CONFIG) -> Path | None:
    """Return the run folder a saved config belongs to, or None when it is in no run's layout.

    Args:
        config_file: `<run>/train_config.yaml`, or a file in
            `<run>/checkpoints/<step>/pretrained_model/`.
        record: Name of the file that a run's folder keeps its config in.
    """
    folder = Path(os.path.abspath(config_file)).parent
    if folder.name == PRETRAINED_MODEL and folder.parent.parent.name == CHECKPOINTS:
        return folder.parent.parent.parent
    return folder if config_file.name == record else None


def resolve_pretrained_model(path: Path) -> Path:
    """Return the folder of the policy meant by a run, a checkpoint, that folder itself or a name.

    Args:
        path: a folder, the URL of one in a store (as a path, in which one slash is lost), or
            `user/name` of a policy on the Hub.

    Raises:
        CheckpointError: there is none.
        ConfigError: the URL's scheme is unknown or its package is not installed.
    """
    from leray.platform.home import fetch, store  # which know a run's layout from here

    url = store.remote_url(path)
    if url is not None:
        return fetch.fetch_policy(url)
    if not path.is_dir():
        return pretrained_folder(path)
    if (path / "config.json").is_file():
        return path
    if (path / PRETRAINED_MODEL / "config.json").is_file():
        return path / PRETRAINED_MODEL
    if (path / CHECKPOINTS).is_dir():
        last = RunDirectory(path).last_checkpoint()
        if last is None:
            raise CheckpointError(f"{path}: this run has no complete checkpoint yet")
        return resolve_pretrained_model(last[1])
    raise CheckpointError(
        f"{path}: holds no policy, neither config.json nor pretrained_model/config.json; "
        "give a run, a checkpoint or a pretrained_model folder"
    )


def _fsync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(parent) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(Path(parent))
