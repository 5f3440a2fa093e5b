"""The memory of a sweep: one MLflow run that its trials are nested under."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leray.platform.delivery import Status
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import RUN_ID_FILE, open_tracker


class SweepTracker:
    """The sweep's own run: its options, the best trial so far, its results.

    Like a training run's record it is kept on disk, in `<folder>/logs`, delivered by a thread, and
    continued where the sweep is resumed. Trials are nested under it through `parent_id_file`.

    Args:
        config: Where metrics go.
        folder: The sweep's folder.
        name: Name of the sweep, shown in MLflow.
        params: Space and options of the sweep, nested plain values.
        tags: Further tags.

    Raises:
        ConfigError: the tracking URI is of a kind MLflow does not have.
    """

    def __init__(
        self,
        config: MLflowConfig,
        folder: Path,
        *,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.parent_id_file = folder / RUN_ID_FILE
        """Holds the id of the sweep's run once MLflow has it; for `open_tracker` of the trials."""
        self._tracker = open_tracker(
            config,
            RunDirectory(folder),
            params=params,
            run_name=name,
            tags={"leray.sweep": name, **(tags or {})},
            command="sweep",
        )

    def wait_for_run(self, timeout_s: float = 60.0) -> bool:
        """Wait until MLflow has the sweep's run, so that trials need not wait for their parent.

        Returns:
            Whether it has; false at once where MLflow is away or not used.
        """
        return self._tracker.wait_for_run(timeout_s)

    def log_trials(
        self,
        *,
        finished: int,
        best: float | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Record how far the sweep is; the number of finished trials takes the place of the step.

        Args:
            finished: Trials that have ended, whatever way.
            best: The best value of the sweep's metric so far; None before the first.
            figures: Figures of the best trial, under their own names, so that the sweep stands
                beside its trials in MLflow's tables.
        """
        values = {**(figures or {}), "sweep/trials_finished": finished}
        if best is not None:
            values["sweep/best"] = best
        self._tracker.log_metrics(values, finished)

    def log_artifact(self, path: Path) -> None:
        """Keep a file or folder with the sweep's run; it must stay until `finish`."""
        self._tracker.log_artifact(path)

    def register_policy(self, folder: Path) -> None:
        """Put a policy into the model registry, where `mlflow.register_as` names one."""
        self._tracker.register_policy(folder)

    def finish(self, status: Status = "FINISHED") -> int:
        """End the record; return how many reports could not be delivered within 60 s."""
        return self._tracker.finish(status)

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
        self._tracker.__exit__(kind, error, trace)
