"""The record of a training run, opened from its config."""

import functools
from pathlib import Path

from leray.platform.config import TrainConfig
from leray.platform.delivery import Status
from leray.platform.lineage import dataset_lineage
from leray.platform.parsing import encode, load
from leray.platform.run_directory import RunDirectory
from leray.platform.tracking import NullTracker, count_undelivered, open_tracker


def open_run_tracker(
    config: TrainConfig, run: RunDirectory, parent_id_file: Path | None = None
) -> NullTracker:
    """Open the record of a training run, with its config as params and its dataset as input.

    Args:
        config: The resolved config.
        run: The run's folder.
        parent_id_file: File that holds the MLflow run this one is nested under.

    Raises:
        ConfigError: the tracking URI is of a kind MLflow does not have.
    """
    tags, lineage, dataset = {}, None, config.dataset
    if dataset is not None:
        tags["dataset"] = dataset.repo_id or str(dataset.root)
        lineage = functools.partial(dataset_lineage, dataset, config.validation)
    return open_tracker(
        config.mlflow,
        run,
        params=encode(config),
        run_name=str(config.job_name),
        tags=tags,
        parent_id_file=parent_id_file,
        lineage=lineage,
    )


def deliver_rest(
    run: RunDirectory, *, parent_id_file: Path | None = None, status: Status = "FINISHED"
) -> int:
    """Send what a run that has ended could not deliver, because MLflow was away then.

    Args:
        run: The run's folder; no process may be training in it.
        parent_id_file: File that holds the MLflow run this one is nested under.
        status: How the run ended.

    Returns:
        How many reports are still not delivered.

    Raises:
        ConfigError: the run's config is missing or damaged.
    """
    config = load(TrainConfig, run.config_file)
    if not config.mlflow.enable or count_undelivered(run) == 0:
        return 0
    return open_run_tracker(config, run, parent_id_file).finish(status)
