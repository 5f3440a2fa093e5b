"""From records on disk to MLflow: a thread that sends, waits, and sends again."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from leray.platform.journal import Journal
from leray.platform.lineage import DatasetLineage
from leray.platform.mlflow_store import DeletedRunError, ParentPendingError

logger = logging.getLogger(__name__)
Records = list[dict[str, Any]]
Lineage = Callable[[], Sequence[DatasetLineage]]
Status = Literal["FINISHED", "FAILED", "KILLED"]
SEND_PERIOD_S = 1.0
LONGEST_RETRY_S = 30.0
FINISH_TIMEOUT_S = 60.0
RETURN_TIMEOUT_S = 45.0
"""How long the end of a run waits for an MLflow that was there before, or for its parent."""
GONE = ("RESOURCE_DOES_NOT_EXIST",)
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


class Store(Protocol):
    """What is delivered to; `MLflowStore` is the real one.

    After a lost answer or a kill the same things are sent again; a store keeps them once.
    """

    uri: str

    def connect(self) -> str:
        """Return the run's id, creating the run when needed."""

    def send_metrics(self, records: Records) -> None:
        """Put journal records into the run."""

    def send_artifact(self, path: Path, artifact_path: str | None) -> None:
        """Copy a file or folder into the run's artifacts."""

    def send_datasets(self, datasets: Sequence[DatasetLineage]) -> None:
        """Name the datasets of the run."""

    def register(self, name: str, folder: Path) -> None:
        """Put a policy's folder into the model registry."""

    def end(self, status: str) -> None:
        """Set the run's final status."""

    def forget_run(self) -> None:
        """Drop a run that was deleted, so that a new one is made."""


class Delivery:
    """Sends what stands behind the delivery marks of a run's journals, until it is ended.

    Args:
        store: Where to deliver.
        metrics: Records of metrics.
        artifacts: Records of files and folders.
        lineage: Describes the datasets; called in the thread.
    """

    def __init__(
        self, store: Store, metrics: Journal, artifacts: Journal, lineage: Lineage | None
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._artifacts = artifacts
        self._lineage = lineage
        self._described_in: str | None = None
        self._status: Status = "FINISHED"
        self._stop = threading.Event()
        self._stopped_s = math.inf
        self._is_away = False
        self._has_refused = False
        self.run_id: str | None = None
        """The run in MLflow, once it is there."""
        self.failure: Exception | None = None
        """Why the last attempt failed."""
        self._thread = threading.Thread(target=self._run, name="leray-tracker", daemon=True)
        self._thread.start()

    def end(self, status: Status) -> bool:
        """Deliver what is left and set the run's status; wait at most 60 s for it.

        Returns:
            Whether the thread has ended.
        """
        self._status = status
        self._stopped_s = time.monotonic()
        self._stop.set()
        self._thread.join(FINISH_TIMEOUT_S)
        has_ended = not self._thread.is_alive()
        if not has_ended and self.failure is None:
            self.failure = TimeoutError(f"no answer within {FINISH_TIMEOUT_S:.0f} s")
        return has_ended

    def wait_for_run(self, timeout_s: float) -> bool:
        """Wait until MLflow has the run; no longer once an attempt has failed.

        Returns:
            Whether it has.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.run_id is None and self.failure is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self.run_id is not None

    def count_left(self) -> int:
        """Return how many records are not delivered."""
        journals = (self._metrics, self._artifacts)
        return sum(each.count_after(each.delivered(self.run_id or "")) for each in journals)

    def _run(self) -> None:
        """Send until told to stop, slower while MLflow is away; then the rest, and end the run."""
        pause = SEND_PERIOD_S
        while True:
            stopping = self._stop.is_set()
            try:
                self._send_all()
                if stopping:
                    self._store.end(self._status)
                if self._is_away:
                    logger.info("MLflow at %s is back; nothing was lost", self._store.uri)
                self.failure, self._is_away, pause = None, False, SEND_PERIOD_S
            except Exception as error:  # the network, MLflow, sqlite: training goes on regardless
                self._note(error)
                pause = min(pause * 2, LONGEST_RETRY_S)
            if not stopping:
                self._stop.wait(pause)
            elif self._may_hope():
                time.sleep(SEND_PERIOD_S)
            else:
                return

    def _may_hope(self) -> bool:
        """Tell whether what could not be delivered at the end is likely to be deliverable soon."""
        waited_s = time.monotonic() - self._stopped_s
        likely = self.run_id is not None or isinstance(self.failure, ParentPendingError)
        return self.failure is not None and likely and waited_s < RETURN_TIMEOUT_S

    def _send_all(self) -> None:
        self.run_id = self._store.connect()
        self._send(self._metrics, self.run_id, self._store.send_metrics)
        if self._lineage is not None and self._described_in != self.run_id:
            self._store.send_datasets(_described(self._lineage))
            self._described_in = self.run_id
        self._send(self._artifacts, self.run_id, self._send_artifacts)

    def _send(self, journal: Journal, run_id: str, send: Callable[[Records], None]) -> None:
        """Send what stands behind the mark, moving the mark after each batch MLflow has taken."""
        position = journal.delivered(run_id)
        while True:
            records, following = journal.read(position)
            if following == position:
                return
            self._send_records(journal, records, send)
            journal.mark_delivered(run_id, following)
            position = following

    def _send_records(
        self, journal: Journal, records: Records, send: Callable[[Records], None]
    ) -> None:
        """Send records; where MLflow refuses some, find them by halves and send all others."""
        try:
            send(records)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSED:
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self._send_records(journal, records[:middle], send)
                self._send_records(journal, records[middle:], send)
            elif not self._has_refused:
                self._has_refused = True
                logger.warning(
                    "MLflow refuses some reports, they stay in %s: %s",
                    journal.path,
                    one_line(error),
                )

    def _send_artifacts(self, records: Records) -> None:
        for record in records:
            path = Path(record["path"])
            if not path.exists():
                logger.warning("%s: gone before it could be sent to MLflow", path)
            elif "register_as" in record:
                self._store.register(record["register_as"], path)
            else:
                self._store.send_artifact(path, record["artifact_path"])

    def _note(self, error: Exception) -> None:
        """Remember why nothing can be delivered; tell it once."""
        self.failure = error
        if isinstance(error, ParentPendingError):
            return
        if isinstance(error, DeletedRunError) or getattr(error, "error_code", None) in GONE:
            self._store.forget_run()
        if not self._is_away:
            logger.warning(
                "MLflow at %s does not answer (%s). Training goes on; metrics are kept in %s "
                "and sent when it is back.",
                self._store.uri, one_line(error), self._metrics.path,
            )  # fmt: skip
        self._is_away = True


def one_line(reason: object) -> str:
    """Return the beginning of a reason, in one line."""
    return " ".join(str(reason).split())[:300]


def _described(lineage: Lineage) -> Sequence[DatasetLineage]:
    """Return the datasets; a record without them is better than none."""
    try:
        return lineage()
    except Exception as error:  # whatever a dataset may hold
        logger.warning("the dataset is not described in MLflow: %s", one_line(error))
        return []
