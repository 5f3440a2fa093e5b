"""MLflow's model registry: policies by name and version, as plain folders."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leray.errors import CheckpointError

POLICIES = "policies"
"""Folder of a run's artifacts; each policy lies in a folder of its own, named by its content."""


def register_policy(
    store_uri: str,
    name: str,
    folder: Path,
    *,
    run_id: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Put a policy's folder into the model registry, as it is: no flavour, nothing pickled.

    The folder is copied into the artifacts of a run, and `models:/<name>/<version>` leads there:
    `mlflow.artifacts.download_artifacts` returns the folder, which `--policy.path` takes. The same
    policy of the same run gets one version, however often it is registered.

    Args:
        store_uri: MLflow server or store, as `resolve_tracking_uri` returns it.
        name: The model's name; it is made when missing.
        folder: The `pretrained_model` folder of a checkpoint.
        run_id: The MLflow run that the policy is of.
        tags: Tags of the version.

    Returns:
        The version.

    Raises:
        CheckpointError: the folder is missing or empty.
        MlflowException: MLflow is away, refuses the name, or does not have the run.
    """
    from mlflow import MlflowClient

    digest = folder_digest(folder)
    client = MlflowClient(tracking_uri=store_uri, registry_uri=store_uri)
    place = f"{POLICIES}/{digest}"
    source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{place}"
    known = _version_from(client, name, source, run_id)
    if known is not None:
        return known
    client.log_artifacts(run_id, str(folder), place)
    _make_model(client, name)
    version = client.create_model_version(name, source, run_id, tags=dict(tags or {}))
    return str(version.version)


def folder_digest(folder: Path) -> str:
    """Return 16 hex digits that tell a folder's content from any other's.

    Raises:
        CheckpointError: the folder is missing or empty.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise CheckpointError(f"{folder}: no policy to register, the folder is missing or empty")
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return whole.hexdigest()[:16]


def _version_from(client: Any, name: str, source: str, run_id: str) -> str | None:
    """Return the version that a policy got earlier; the answer may have been lost then."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    same = (each for each in found if each.name == name and each.source == source)
    return next((str(each.version) for each in same), None)


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
