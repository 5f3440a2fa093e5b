"""MLflow as the tracker sees it: one run to create or continue, and batches to put into it."""

import json
import logging
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leray.errors import ConfigError
from leray.files import write_atomic
from leray.platform.lineage import DatasetLineage
from leray.platform.registry import register_policy

PARAM_LIMIT = 6_000
"""Characters MLflow keeps of a parameter's value."""
TAG_LIMIT = 8_000
"""Characters MLflow keeps of a tag's value."""
NAME_LIMIT = 250
"""Characters MLflow allows in the name of a metric or parameter."""
METRICS_PER_CALL = 1_000
PARAMS_PER_CALL = 100
SERVERS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
PARENT_TAG = "mlflow.parentRunId"
ATTEMPT_TAG = "leray.attempt"
"""Tells a run that was created although the answer was lost from all others."""
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the tracker retries by itself, without blocking
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def resolve_tracking_uri(given: str | None) -> str:
    """Return the MLflow store to use, sqlite paths made absolute.

    Args:
        given: A tracking URI; None takes `$MLFLOW_TRACKING_URI`, else `outputs/mlflow.db`.

    Raises:
        ConfigError: MLflow has no such kind of store, or no longer.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///outputs/mlflow.db"
    scheme = uri.split(":", 1)[0].split("+", 1)[0] if ":" in uri else ""
    if scheme not in SERVERS and uri != "databricks":
        raise ConfigError(
            f"MLflow tracking URI {uri}: MLflow no longer writes to plain folders; give "
            "sqlite:///path/to/mlflow.db or http://host:5000"
        )
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute file of a sqlite URI, or None for other stores."""
    prefix, slashes, path = uri.partition(":///")
    return Path(path).absolute() if slashes and prefix.split("+")[0] == "sqlite" else None


def quiet_environment() -> None:
    """Switch off MLflow's telemetry and chatter, unless the environment says otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def flatten_params(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested config values into dotted names and texts that MLflow accepts."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten_params(value, f"{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[valid_name(key)] = text[:PARAM_LIMIT]
    return flat


def valid_name(name: str) -> str:
    """Replace the characters MLflow refuses in names of metrics and params."""
    allowed = re.sub(r"[^\w\-./ :]", "_", name, flags=re.ASCII)
    return posixpath.normpath(allowed).lstrip("/.")[:NAME_LIMIT] or "_"


class ParentPendingError(Exception):
    """The run that this one is nested under is not in MLflow yet."""


class DeletedRunError(Exception):
    """The run was moved to the bin while it was written to."""


class MLflowStore:
    """One run in one MLflow store. Every method may raise what MLflow raises when it is away.

    Whatever is sent may be sent again: MLflow keys a point by name, time, step and value and keeps
    the same one once, datasets are kept once by name and digest, policies by content, and an
    artifact replaces itself. A run whose creation was not answered is found again.

    Args:
        uri: Resolved tracking URI.
        experiment: Name of the experiment; it is made when missing.
        id_file: File that keeps the run's id, so that the run is continued after a restart.
        run_name: Name shown in MLflow.
        params: Flat texts, see `flatten_params`.
        tags: Tags of the run.
        parent_id_file: File that will hold the id of the run this one is nested under.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        id_file: Path,
        run_name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_id_file: Path | None = None,
    ) -> None:
        self.uri = uri
        self.run_id: str | None = None
        self._experiment = experiment
        self._id_file = id_file
        self._run_name = run_name
        self._params = params
        self._tags = {key: str(value)[:TAG_LIMIT] for key, value in tags.items()}
        self._parent_id_file = parent_id_file
        self._client: Any = None

    def connect(self) -> str:
        """Create the run, or find the one of `id_file` and set it running; return its id.

        Raises:
            ParentPendingError: the run's parent is not there yet.
        """
        if self.run_id is not None:
            return self.run_id
        parent = self._parent()
        if self._client is None:
            self._client = self._make_client()
        run = self._find_run() or self._create_run(parent)
        run_id: str = run.info.run_id
        for key, value in parent.items():
            if run.data.tags.get(key) != value:
                self._client.set_tag(run_id, key, value)
        self._record_params(run_id, run.data.params)
        self.run_id = run_id
        return run_id

    def send_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Put journal records (`step`, `time` in seconds, then values by name) into the run.

        Raises:
            DeletedRunError: the run was moved to the bin.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        points = [
            Metric(valid_name(name), value, int(record["time"] * 1000), int(record["step"]))
            for record in records
            for name, value in record.items()
            if name not in ("step", "time")
        ]
        try:
            for some in _chunks(points, METRICS_PER_CALL):
                self._client.log_batch(self.run_id, metrics=some)
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE" and not self._is_active():
                raise DeletedRunError("the run was deleted") from error
            raise

    def send_datasets(self, datasets: Sequence[DatasetLineage]) -> None:
        """Name the datasets that the run learns from and is judged on."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = [
            DatasetInput(
                Dataset(
                    name=each.name,
                    digest=each.digest,
                    source_type=each.source_type,
                    source=json.dumps(each.source),
                    schema=json.dumps(each.schema),
                    profile=json.dumps(each.profile),
                ),
                [InputTag(MLFLOW_DATASET_CONTEXT, each.context)],
            )
            for each in datasets
        ]
        self._client.log_inputs(self.run_id, datasets=inputs)

    def send_artifact(self, path: Path, artifact_path: str | None) -> None:
        """Copy a file, or a folder's content, into the run's artifacts."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self.run_id, str(path), artifact_path)

    def register(self, name: str, folder: Path) -> None:
        """Put a policy's folder into the model registry, as a version under a name."""
        assert self.run_id is not None
        register_policy(self.uri, name, folder, run_id=self.run_id)

    def end(self, status: str) -> None:
        """Set the run's final status."""
        self._client.set_terminated(self.run_id, status)

    def forget_run(self) -> None:
        """Drop a run that no longer exists, so that the next `connect` makes a new one."""
        self.run_id = None
        self._id_file.unlink(missing_ok=True)

    def _is_active(self) -> bool:
        return bool(self._client.get_run(self.run_id).info.lifecycle_stage == "active")

    def _make_client(self) -> Any:
        database = sqlite_path(self.uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self.uri)

    def _find_run(self) -> Any:
        from mlflow.exceptions import MlflowException

        if not self._id_file.is_file():
            return None
        try:
            run = self._client.get_run(self._id_file.read_text().strip())
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _parent(self) -> dict[str, str]:
        """Return the tag that nests the run, if it is to be nested."""
        if self._parent_id_file is None:
            return {}
        try:
            return {PARENT_TAG: self._parent_id_file.read_text().strip()}
        except FileNotFoundError as error:
            raise ParentPendingError(
                f"the parent run is not there yet: no {self._parent_id_file}"
            ) from error

    def _create_run(self, parent: Mapping[str, str]) -> Any:
        """Create the run, or find the one that an earlier attempt created without an answer."""
        experiment_id = self._experiment_id()
        attempt = self._id_file.with_suffix(".attempt")
        run = None
        if attempt.is_file():
            run = self._created_by(attempt.read_text(), experiment_id)
        if run is None:
            key = uuid.uuid4().hex
            write_atomic(attempt, key.encode())
            run = self._client.create_run(
                experiment_id,
                tags={**self._tags, **parent, ATTEMPT_TAG: key},
                run_name=self._run_name,
            )
        write_atomic(self._id_file, f"{run.info.run_id}\n".encode())
        attempt.unlink()
        return run

    def _created_by(self, key: str, experiment_id: str) -> Any:
        query = f"tags.`{ATTEMPT_TAG}` = '{key}'"
        return next(iter(self._client.search_runs([experiment_id], query, max_results=1)), None)

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        database = sqlite_path(self.uri)
        location = None if database is None else (database.parent / "mlartifacts").as_uri()
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment, location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self._experiment)
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _record_params(self, run_id: str, recorded: Mapping[str, str]) -> None:
        """Log params once; one that a resume changed becomes a tag, as params cannot change."""
        from mlflow.entities import Param, RunTag

        new = [Param(key, text) for key, text in self._params.items() if key not in recorded]
        changed = [
            RunTag(f"resumed.{key}", text[:TAG_LIMIT])
            for key, text in self._params.items()
            if recorded.get(key, text) != text
        ]
        for some in _chunks(new, PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=some)
        for some in _chunks(changed, PARAMS_PER_CALL):
            self._client.log_batch(run_id, tags=some)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
