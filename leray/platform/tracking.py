"""The memory of a run: metrics on disk at once, and in MLflow as soon as it can be reached."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leray.platform.delivery import Delivery, Lineage, Status, Store, one_line
from leray.platform.journal import Journal
from leray.platform.mlflow_store import (
    MLflowStore,
    flatten_params,
    quiet_environment,
    resolve_tracking_uri,
)
from leray.platform.run_directory import RunDirectory
from leray.platform.run_tags import run_tags
from leray.platform.sections import MLflowConfig

logger = logging.getLogger(__name__)
RUN_ID_FILE = "mlflow_run_id"
"""File in a run's folder that holds the id of its MLflow run."""
METRICS, ARTIFACTS = "metrics.jsonl", "artifacts.jsonl"


class NullTracker:
    """Records metrics in `<run>/logs/metrics.jsonl` only; also the base of `Tracker`.

    No method raises on a full disk or an absent server: training comes first. A run that is opened
    again goes on from a checkpoint, so it comes by steps that are recorded already: these are not
    recorded a second time.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._metrics = Journal(run.logs / METRICS)
        self._recorded = _last_steps(self._metrics)
        self._lost = 0

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record values at an environment step and the present time; non-finite ones are skipped.

        Args:
            values: Metric names, for example `train/episode_return`, and numbers.
            step: Environment step (offline: update) the values belong to.
        """
        new = {
            name: number
            for name, value in values.items()
            if math.isfinite(number := float(value)) and step > self._recorded.get(name, -math.inf)
        }
        if new:
            when = {"step": int(step), "time": time.time()}
            self._append(self._metrics, when | new | when)  # whatever the figures are called

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Keep a file or folder with the run; without MLflow it is in the run's folder anyway."""

    def log_checkpoint(self, folder: Path, name: str) -> None:
        """Keep a policy's folder with the run, where `mlflow.log_checkpoints` asks for it."""

    def register_policy(self, folder: Path) -> None:
        """Put a policy's folder into the model registry, where `mlflow.register_as` names one."""

    def wait_for_run(self, timeout_s: float) -> bool:
        """Wait until MLflow has the run, not for an MLflow that is away; return whether it has."""
        return False

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
        lineage: Describes the datasets; called in the thread.
        log_checkpoints: Whether to keep policies as artifacts.
        register_as: Name in the model registry; None registers nothing.
        command: The command that goes on with such a run, for messages.
    """

    def __init__(
        self,
        run: RunDirectory,
        store: Store,
        *,
        lineage: Lineage | None = None,
        log_checkpoints: bool = False,
        register_as: str | None = None,
        command: str = "train",
    ) -> None:
        super().__init__(run)
        self._artifacts = Journal(run.logs / ARTIFACTS)
        self._uri = store.uri
        self._log_checkpoints = log_checkpoints
        self._register_as = register_as
        self._resume = f"leray {command} --resume=true --output_dir={run.address}"
        self._is_finished = False
        self._delivery = Delivery(store, self._metrics, self._artifacts, lineage)

    @property
    def run_id(self) -> str | None:
        """The run in MLflow, once it is there."""
        return self._delivery.run_id

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Queue a file or folder for the run's artifacts; it is read when it is sent.

        Args:
            path: The file or folder; it must stay until `finish`.
            artifact_path: Folder inside the run's artifacts.
        """
        record = {"path": str(Path(path).absolute()), "artifact_path": artifact_path}
        self._append(self._artifacts, record)

    def log_checkpoint(self, folder: Path, name: str) -> None:
        """Queue a policy's folder for `checkpoints/<name>` of the artifacts, if that is asked for.

        Args:
            folder: A checkpoint's `pretrained_model`; it must stay until `finish`.
            name: `best` or `last`.
        """
        if self._log_checkpoints:
            self.log_artifact(folder, f"checkpoints/{name}")

    def register_policy(self, folder: Path) -> None:
        """Queue a policy's folder for the model registry, if that is asked for.

        Args:
            folder: A checkpoint's `pretrained_model`; it must stay until `finish`.
        """
        if self._register_as is not None:
            record = {"path": str(Path(folder).absolute()), "register_as": self._register_as}
            self._append(self._artifacts, record)

    def wait_for_run(self, timeout_s: float) -> bool:
        """Wait until MLflow has the run, not for an MLflow that is away; return whether it has."""
        return self._delivery.wait_for_run(timeout_s)

    def finish(self, status: Status = "FINISHED") -> int:
        """Deliver what is left and set the run's status; wait at most 60 s for it.

        Returns:
            How many metric reports and artifacts stay undelivered; they are kept in the run.
            0 when called again.
        """
        if self._is_finished:
            return 0
        self._is_finished = True
        has_ended = self._delivery.end(status)
        left = self._delivery.count_left()
        if left:
            reason = one_line(self._delivery.failure)
            logger.warning(
                "MLflow at %s lacks %d reports of this run (%s). They are kept in %s; "
                "`%s` sends them.",
                self._uri, left, reason, self._metrics.path, self._resume,
            )  # fmt: skip
        if has_ended:
            self._metrics.close()
            self._artifacts.close()
        return left + self._lost


def count_undelivered(run: RunDirectory) -> int:
    """Return how many reports and artifacts of a run MLflow lacks; no process may have it open."""
    id_file = run.root / RUN_ID_FILE
    run_id = id_file.read_text().strip() if id_file.is_file() else ""
    count = 0
    for name in (METRICS, ARTIFACTS):
        journal = Journal(run.logs / name)
        count += journal.count_after(journal.delivered(run_id))
        journal.close()
    return count


def open_tracker(
    config: MLflowConfig,
    run: RunDirectory,
    *,
    params: Mapping[str, Any],
    run_name: str,
    tags: Mapping[str, str] | None = None,
    parent_id_file: Path | None = None,
    lineage: Lineage | None = None,
    command: str = "train",
) -> NullTracker:
    """Open the record of a run; a run opened before is continued, in MLflow too.

    Args:
        config: Where metrics go.
        run: The run's folder.
        params: The resolved config, nested as `parsing.encode` returns it.
        run_name: Name shown in MLflow.
        tags: Further tags, for example `dataset`.
        parent_id_file: `RUN_ID_FILE` of the sweep that this run is nested under. The run is not in
            MLflow before the file is there; training goes on meanwhile.
        lineage: Describes the run's datasets, see `lineage.dataset_lineage`; called in the thread
            that delivers.
        command: The command that goes on with such a run, for messages.

    Raises:
        ConfigError: the tracking URI is of a kind MLflow does not have.
    """
    if not config.enable:
        return NullTracker(run)
    uri = resolve_tracking_uri(config.tracking_uri)
    quiet_environment()
    store = MLflowStore(
        uri,
        config.experiment,
        run.root / RUN_ID_FILE,
        run_name,
        flatten_params(params),
        {**run_tags(), **(tags or {})},
        parent_id_file,
    )
    return Tracker(
        run,
        store,
        lineage=lineage,
        log_checkpoints=config.log_checkpoints,
        register_as=config.register_as,
        command=command,
    )


def _last_steps(journal: Journal) -> dict[str, int]:
    """Return the last step that is recorded of each figure."""
    last: dict[str, int] = {}
    for record in journal.records():
        step = record.get("step", 0)
        for name in record:
            last[name] = max(step, last.get(name, step))
    return last
