"""The memory of a run: metrics on disk at once, and in MLflow as soon as it can be reached."""

import getpass
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import leray
from leray.platform.info import git_commit
from leray.platform.journal import Journal
from leray.platform.mlflow_store import (
    MLflowStore,
    flatten_params,
    quiet_environment,
    resolve_tracking_uri,
)
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig

logger = logging.getLogger(__name__)
Records = list[dict[str, Any]]
Status = Literal["FINISHED", "FAILED", "KILLED"]
SEND_PERIOD_S = 1.0
LONGEST_RETRY_S = 30.0
FINISH_TIMEOUT_S = 60.0
GONE = ("RESOURCE_DOES_NOT_EXIST",)
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


class Store(Protocol):
    """What a tracker delivers to; `MLflowStore` is the real one."""

    uri: str

    def connect(self) -> str:
        """Return the run's id, creating the run when needed."""

    def send_metrics(self, records: Records) -> None:
        """Put journal records into the run."""

    def send_artifact(self, path: Path, artifact_path: str | None) -> None:
        """Copy a file or folder into the run's artifacts."""

    def end(self, status: str) -> None:
        """Set the run's final status."""

    def forget_run(self) -> None:
        """Drop a run that was deleted, so that a new one is made."""


class NullTracker:
    """Records metrics in `<run>/logs/metrics.jsonl` only; also the base of `Tracker`.

    No method raises on a full disk or an absent server: training comes first.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._metrics = Journal(run.logs / "metrics.jsonl")
        self._lost = 0

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record values at an environment step and the present time; non-finite ones are skipped.

        Args:
            values: Metric names, for example `train/episode_return`, and numbers.
            step: Environment step (offline: update) the values belong to.
        """
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        if finite:
            self._append(self._metrics, {"step": int(step), "time": time.time(), **finite})

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Keep a file or folder with the run; without MLflow it is in the run's folder anyway."""

    def finish(self, status: Status = "FINISHED") -> int:
        """End the record; return how many reports could not be delivered."""
        self._metrics.close()
        return self._lost

    def _append(self, journal: Journal, record: Mapping[str, Any]) -> None:
        try:
            journal.append(record)
        except OSError as error:
            if not self._lost:
                logger.warning("%s: metrics are not recorded: %s", journal.path, error)
            self._lost += 1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish with the status that fits how the body ended."""
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")


class Tracker(NullTracker):
    """Records metrics on disk and delivers them to MLflow from a thread of its own.

    The record on disk is the queue: the caller only appends to it, the thread sends what stands
    behind the delivery mark, again and again until MLflow has it. What a run leaves undelivered is
    sent when the run is resumed.

    Args:
        run: The run's folder.
        store: Where to deliver.
    """

    def __init__(self, run: RunDirectory, store: Store) -> None:
        super().__init__(run)
        self._artifacts = Journal(run.logs / "artifacts.jsonl")
        self._store = store
        self._root = run.root
        self._status: Status = "FINISHED"
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self.run_id: str | None = None
        self._thread = threading.Thread(target=self._deliver, name="leray-tracker", daemon=True)
        self._thread.start()

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Queue a file or folder for the run's artifacts; it is read when it is sent.

        Args:
            path: The file or folder; it must stay until `finish`.
            artifact_path: Folder inside the run's artifacts.
        """
        record = {"path": str(Path(path).absolute()), "artifact_path": artifact_path}
        self._append(self._artifacts, record)

    def finish(self, status: Status = "FINISHED") -> int:
        """Deliver what is left and set the run's status; wait at most 60 s for it.

        Returns:
            How many metric reports and artifacts stay undelivered; they are kept in the run.
            0 when called again.
        """
        if self._stop.is_set():
            return 0
        self._status = status
        self._stop.set()
        self._thread.join(FINISH_TIMEOUT_S)
        journals = (self._metrics, self._artifacts)
        left = self._lost + sum(j.count_after(j.delivered(self.run_id or "")) for j in journals)
        if left:
            reason = self._failure or f"no answer within {FINISH_TIMEOUT_S:.0f} s"
            logger.warning(
                "MLflow at %s lacks %d reports of this run (%s). They are kept in %s; "
                "`leray train --resume=true --output_dir=%s` sends them.",
                self._store.uri, left, _one_line(reason), self._metrics.path, self._root,
            )  # fmt: skip
        if not self._thread.is_alive():
            self._metrics.close()
            self._artifacts.close()
        return left

    def _deliver(self) -> None:
        """Send until told to stop, slower while MLflow is away; then once more, and end the run."""
        pause = SEND_PERIOD_S
        while True:
            stopping = self._stop.is_set()
            try:
                self._send_all()
                if stopping:
                    self._store.end(self._status)
                if self._failure is not None:
                    logger.info("MLflow at %s is back; nothing was lost", self._store.uri)
                self._failure, pause = None, SEND_PERIOD_S
            except Exception as error:  # the network, MLflow, sqlite: training goes on regardless
                self._note(error)
                pause = min(pause * 2, LONGEST_RETRY_S)
            if stopping:
                return
            self._stop.wait(pause)

    def _send_all(self) -> None:
        self.run_id = self._store.connect()
        self._send(self._metrics, self.run_id, self._store.send_metrics)
        self._send(self._artifacts, self.run_id, self._send_artifacts)

    def _send(self, journal: Journal, run_id: str, send: Callable[[Records], None]) -> None:
        """Send what stands behind the mark, moving the mark after each batch MLflow has taken."""
        position = journal.delivered(run_id)
        while True:
            records, following = journal.read(position)
            if following == position:
                return
            try:
                send(records)
            except Exception as error:
                if getattr(error, "error_code", None) not in REFUSED:
                    raise
                logger.warning(
                    "MLflow refuses some reports, they stay in %s: %s",
                    journal.path,
                    _one_line(error),
                )
            journal.mark_delivered(run_id, following)
            position = following

    def _send_artifacts(self, records: Records) -> None:
        for record in records:
            path = Path(record["path"])
            if path.exists():
                self._store.send_artifact(path, record["artifact_path"])
            else:
                logger.warning("%s: gone before it could be sent to MLflow", path)

    def _note(self, error: Exception) -> None:
        if getattr(error, "error_code", None) in GONE:
            self._store.forget_run()
        if self._failure is None:
            logger.warning(
                "MLflow at %s does not answer (%s). Training goes on; metrics are kept in %s "
                "and sent when it is back.",
                self._store.uri, _one_line(error), self._metrics.path,
            )  # fmt: skip
        self._failure = error


def open_tracker(
    config: MLflowConfig,
    run: RunDirectory,
    *,
    params: Mapping[str, Any],
    run_name: str,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> NullTracker:
    """Open the record of a run; a run opened before is continued, in MLflow too.

    Args:
        config: Where metrics go.
        run: The run's folder.
        params: The resolved config, nested as `parsing.encode` returns it.
        run_name: Name shown in MLflow.
        tags: Further tags, for example `dataset.root` and `dataset.fingerprint`.
        parent_run_id: MLflow run this one is nested under.

    Raises:
        ConfigError: the tracking URI is of a kind MLflow does not have.
    """
    if not config.enable:
        return NullTracker(run)
    uri = resolve_tracking_uri(config.tracking_uri)
    quiet_environment()
    all_tags = {**_standard_tags(), **(tags or {})}
    if parent_run_id is not None:
        all_tags["mlflow.parentRunId"] = parent_run_id
    store = MLflowStore(
        uri,
        config.experiment,
        run.root / "mlflow_run_id",
        run_name,
        flatten_params(params),
        all_tags,
    )
    return Tracker(run, store)


def _standard_tags() -> dict[str, str]:
    tags = {
        "host": socket.gethostname(),
        "leray.version": leray.__version__,
        "mlflow.source.name": " ".join(sys.argv)[:500],
        "mlflow.user": _user(),
    }
    package, here = git_commit(Path(leray.__file__).parent), git_commit(Path.cwd())
    if package is not None:
        tags["leray.git_commit"] = package
    if here is not None or package is not None:
        tags["mlflow.source.git.commit"] = (here or package or "").removesuffix("-dirty")
        tags["git_commit"] = here or package or ""
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:300]
