"""`leray train`: one run from its config to its last checkpoint."""

import datetime
import logging
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leray.algorithms.trainable import Trainable
from leray.errors import CheckpointError
from leray.platform.build import build_algorithm, pretrained_folder
from leray.platform.checkpoint import CheckpointFolder, read_counters
from leray.platform.cluster import connect
from leray.platform.config import TrainConfig
from leray.platform.evaluation import Evaluation, evaluate_checkpoint
from leray.platform.parsing import dump, encode
from leray.platform.progress import Progress
from leray.platform.run_directory import RunDirectory
from leray.platform.tracking import open_tracker

logger = logging.getLogger(__name__)


def run(config: TrainConfig) -> None:
    """Train; returns when the steps are done.

    Raises:
        LerayError: something given is wrong, or a checkpoint could not be written.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
    """
    root = config.output_dir or config.default_output_dir(datetime.datetime.now())
    start = RunDirectory(root).last_checkpoint() if config.resume else None
    run_directory = RunDirectory.create(root, resume=config.resume)
    config.output_dir = root
    if start is None and config.runners.resolved_clock == "sync":
        shutil.rmtree(run_directory.replay)  # of a run that ended before its first checkpoint
    notes: list[str] = []
    connect(num_cpus=config.runners.num_env_runners + config.eval.num_env_runners + 1)
    folder = start[1] / "pretrained_model" if start else pretrained_folder(config)
    algorithm = build_algorithm(config, run_directory, pretrained=folder, notes=notes)
    try:
        if start is not None:
            algorithm.load_training_state(start[1] / "training_state", read_counters(start[1]))
        run_directory.save_config(dump(config))
        Training(config, run_directory, algorithm, notes).run()
    finally:
        algorithm.stop()


class Training:
    """The loop around an algorithm: metrics, evaluation, checkpoints, a graceful stop.

    Args:
        config: the resolved config.
        run_directory: the run's folder.
        algorithm: what trains; see `leray.algorithms.trainable`.
        notes: what to tell the user before the start.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_directory: RunDirectory,
        algorithm: Trainable,
        notes: list[str],
    ) -> None:
        self._config = config
        self._run = run_directory
        self._algorithm = algorithm
        self._notes = notes
        self._metrics: dict[str, float] = {}
        self._stopped_by: str | None = None

    def run(self) -> None:
        """Train until the steps are done or a signal asks to stop."""
        config, algorithm = self._config, self._algorithm
        params = encode(config)
        tags = {} if config.dataset is None else {"dataset": str(config.dataset.root)}
        self._tracker = open_tracker(
            config.mlflow, self._run, params=params, run_name=str(config.job_name), tags=tags
        )
        self._progress = Progress(config.steps, algorithm.progress)
        with self._tracker, self._signals():
            try:
                for note in self._notes:
                    self._progress.message(note)
                self._progress.message(f"run folder {self._run.root}")
                self._loop()
            finally:
                self._progress.close()
        if self._stopped_by is not None:
            print(
                f"stopped by {self._stopped_by} at step {algorithm.progress}; go on with\n"
                f"  leray train --resume=true --output_dir={self._run.root}"
            )
            raise KeyboardInterrupt

    def _loop(self) -> None:
        config, algorithm = self._config, self._algorithm
        step = algorithm.progress
        saved = step if step else None
        while step < config.steps and self._stopped_by is None:
            before = step
            self._train_until(self._next_mark(step))
            step = algorithm.progress
            done = step >= config.steps
            if _crossed(before, step, config.log_freq) or done:
                self._report(step)
            evaluate = _crossed(before, step, config.eval_freq) or done
            if config.save_checkpoint and (
                _crossed(before, step, config.save_freq) or done or self._stopped_by
            ):
                self._checkpoint(step)
                saved = step
            if evaluate and config.env is not None and self._stopped_by is None:
                self._evaluate(step)
        if config.save_checkpoint and saved != step:
            self._checkpoint(step)

    def _next_mark(self, step: int) -> int:
        """Return the next step at which something is due."""
        config = self._config
        freqs = [f for f in (config.log_freq, config.eval_freq, config.save_freq) if f]
        return min([config.steps] + [(step // freq + 1) * freq for freq in freqs])

    def _train_until(self, mark: int) -> None:
        algorithm = self._algorithm
        began_s = time.monotonic()
        first_step, first_update = algorithm.env_steps, algorithm.num_updates
        algorithm.boundary = mark
        while algorithm.progress < mark and self._stopped_by is None:
            algorithm.train()
            seconds = time.monotonic() - began_s
            self._metrics["time/env_steps_per_s"] = (algorithm.env_steps - first_step) / seconds
            self._metrics["time/updates_per_s"] = (algorithm.num_updates - first_update) / seconds
            if self._progress.is_live:
                self._progress.update(algorithm.progress, self._metrics)

    def _report(self, step: int) -> None:
        self._metrics |= self._algorithm.report()
        self._progress.update(step, self._metrics)
        own = {k: v for k, v in self._metrics.items() if not k.startswith("eval/")}
        own["train/env_steps"] = self._algorithm.env_steps
        own["train/updates"] = self._algorithm.num_updates
        self._tracker.log_metrics(own, step)

    def _checkpoint(self, step: int) -> None:
        """Write a checkpoint; what follows in sync mode depends on the seed and the step alone."""
        self._algorithm.checkpoint_boundary()
        try:
            with self._run.writing_checkpoint(step) as temporary:
                CheckpointFolder(temporary).write(self._algorithm, self._config, step)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; go on with leray train --resume=true --output_dir={self._run.root}"
            ) from error
        self._run.prune(self._config.keep_checkpoints)
        self._progress.message(f"checkpoint {self._run.checkpoint(step)}")

    def _evaluate(self, step: int) -> None:
        config = self._config
        assert config.env is not None
        folder = self._run.eval / f"step_{step:06d}"
        self._algorithm.save_pretrained(folder / "policy")
        evaluation = evaluate_checkpoint(
            folder / "policy",
            config.env,
            config.eval,
            seed=config.seed,
            video_folder=folder / "videos" if config.eval.max_episodes_rendered else None,
            device=config.policy.device,
        )
        self._record_evaluation(step, folder, evaluation)

    def _record_evaluation(self, step: int, folder: Path, evaluation: Evaluation) -> None:
        assert self._config.env is not None
        metrics = evaluation.metrics
        self._metrics |= metrics
        self._tracker.log_metrics(metrics, step)
        path = evaluation.save(folder, self._config.env)
        self._tracker.log_artifact(path, f"eval/step_{step:06d}")
        for episode in evaluation.episodes:
            if episode.video_path is not None:
                self._tracker.log_artifact(Path(episode.video_path), f"eval/step_{step:06d}")
        rate = metrics.get("eval/success_rate")
        success = "" if rate is None else f"success {rate:.0%}, "
        self._progress.update(step, self._metrics)
        self._progress.message(
            f"evaluated at step {step}: {success}return {metrics['eval/return_mean']:.2f} over "
            f"{len(evaluation.episodes)} episodes in {evaluation.seconds:.1f} s"
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop after a checkpoint on the first Ctrl-C or SIGTERM, at once on the second."""

        def ask(number: int, _: object) -> None:
            if self._stopped_by is not None:
                raise KeyboardInterrupt
            self._stopped_by = signal.Signals(number).name
            self._algorithm.stop_requested = True
            self._progress.message(f"{self._stopped_by}: saving a checkpoint, then stopping")

        previous = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _crossed(before: int, after: int, frequency: int) -> bool:
    """Tell whether a multiple of a frequency lies in (before, after]; never for frequency 0."""
    return frequency > 0 and after // frequency > before // frequency


__all__ = ["Training", "run"]
