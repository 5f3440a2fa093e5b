"""`leray train`: one run from its config to its last checkpoint."""

import datetime
import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ray.exceptions import RayActorError

from leray.errors import CheckpointError, LearnerError
from leray.platform.build import build_algorithm, evaluation_device, pretrained_folder
from leray.platform.checkpoint import CheckpointFolder, read_counters
from leray.platform.cluster import connect
from leray.platform.config import TrainConfig
from leray.platform.evaluation import Evaluation, evaluate_checkpoint
from leray.platform.parsing import dump, encode
from leray.platform.progress import Progress
from leray.platform.run_directory import PRETRAINED_MODEL, TRAINING_STATE, RunDirectory
from leray.platform.scores import Scores
from leray.platform.tracking import NullTracker, open_tracker

logger = logging.getLogger(__name__)

LOST = "a learner was lost: go on from the last checkpoint"


def run(config: TrainConfig) -> None:
    """Train; returns when the steps are done.

    Raises:
        LerayError: something given is wrong, or a checkpoint could not be written.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
    """
    config.output_dir = config.output_dir or config.default_output_dir(datetime.datetime.now())
    run_directory = RunDirectory.create(config.output_dir, resume=config.resume)
    connect(num_cpus=_num_cpus(config))
    Training(config, run_directory).run()


class Training:
    """The loop around an algorithm: metrics, judgement, checkpoints, restarts, a graceful stop.

    Args:
        config: the resolved config.
        run_directory: the run's folder; training goes on from its last checkpoint if it has one.
    """

    def __init__(self, config: TrainConfig, run_directory: RunDirectory) -> None:
        self._config = config
        self._run = run_directory
        self._open = ExitStack()
        self._metrics: dict[str, float] = {}
        self._stopped_by: str | None = None

    def run(self) -> None:
        """Train until the steps are done or a signal asks to stop."""
        config = self._config
        with self._open:
            notes = self._start()
            self._run.save_config(dump(config))
            self._tracker = _open_tracker(config, self._run)
            unit = "step" if config.use_online_training else "update"
            self._progress = Progress(config.steps, self._algorithm.progress, unit=unit)
            with self._tracker, self._signals():
                try:
                    for note in [*notes, f"run folder {self._run.root}"]:
                        self._progress.message(note)
                    self._loop_with_restarts()
                finally:
                    self._progress.close()
            if self._stopped_by is not None:
                step = self._algorithm.progress
                print(f"stopped by {self._stopped_by} at step {step}; go on with\n  {self._resume}")
                raise KeyboardInterrupt

    @property
    def _resume(self) -> str:
        """The command that goes on with this run."""
        return f"leray train --resume=true --output_dir={self._run.root}"

    def _start(self) -> list[str]:
        """Build the algorithm at the last checkpoint, or at the beginning if there is none.

        Returns:
            What to tell the user.
        """
        config, checkpoint, notes = self._config, self._run.last_checkpoint(), list[str]()
        if checkpoint is None and config.runners.resolved_clock == "sync":
            # what is there is of a run that ended before its first checkpoint
            shutil.rmtree(self._run.replay, ignore_errors=True)
        folder = checkpoint[1] / PRETRAINED_MODEL if checkpoint else pretrained_folder(config)
        algorithm = build_algorithm(config, self._run, pretrained=folder, notes=notes)
        self._open.callback(algorithm.stop)
        if checkpoint is not None:
            state = checkpoint[1] / TRAINING_STATE
            algorithm.load_training_state(state, read_counters(checkpoint[1]))
        self._algorithm = algorithm
        self._saved = algorithm.progress if checkpoint else None
        self._scores = Scores(self._run, config.best_metric, step=algorithm.progress)
        return notes

    def _loop_with_restarts(self) -> None:
        """Train; where a learner is lost, go on from the last checkpoint with new ones."""
        lost, limit = 0, self._config.learners.max_restarts
        while True:
            try:
                if lost:
                    self._start()
                return self._loop()
            except (LearnerError, RayActorError) as error:
                lost += 1
                reason = str(error) if isinstance(error, LearnerError) else LOST
                self._abandon()
                if lost > limit or self._stopped_by is not None:
                    raise LearnerError(
                        f"{reason} with {self._resume} (after {lost - 1} restarts, of "
                        f"--learners.max_restarts={limit})"
                    ) from error
                checkpoint = self._run.last_checkpoint()
                step = checkpoint[0] if checkpoint else 0
                self._progress.message(f"{reason}, step {step} (restart {lost} of {limit})")

    def _abandon(self) -> None:
        """Let go of an algorithm that lost a learner; what fails then does not matter any more."""
        try:
            self._open.close()
        except Exception as error:  # RLlib may ask the dead learner
            logger.debug("stopping after a lost learner: %s", error)

    def _loop(self) -> None:
        config, algorithm = self._config, self._algorithm
        step = algorithm.progress
        self._judge_if_due(step)
        while step < config.steps and self._stopped_by is None:
            before = step
            self._train_until(self._next_mark(step))
            step = algorithm.progress
            done = step >= config.steps
            if _crossed(before, step, config.log_freq) or done:
                self._report(step)
            if config.save_checkpoint and (
                _crossed(before, step, config.save_freq) or done or self._stopped_by
            ):
                self._checkpoint(step)
            self._judge_if_due(step)
        if config.save_checkpoint and self._saved != step:
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
            updates_per_s = (algorithm.num_updates - first_update) / seconds
            self._metrics["time/updates_per_s"] = updates_per_s
            if self._config.use_online_training:
                steps = algorithm.env_steps - first_step
                self._metrics["time/env_steps_per_s"] = steps / seconds
            else:
                samples_per_s = updates_per_s * self._config.samples_per_update
                self._metrics["time/samples_per_s"] = samples_per_s
            if self._progress.is_live:
                self._progress.update(algorithm.progress, self._metrics)

    def _report(self, step: int) -> None:
        self._metrics |= self._algorithm.report()
        self._progress.update(step, self._metrics)
        counts = {
            "train/env_steps": self._algorithm.env_steps,
            "train/updates": self._algorithm.num_updates,
        }
        self._tracker.log_metrics(self._metrics | counts, step)

    def _show_judgement(self, step: int, figures: dict[str, float]) -> None:
        """Record what the policy was judged by; a line for people follows it."""
        self._tracker.log_metrics(figures, step)
        if self._progress.is_live:
            self._progress.update(step, figures)

    def _checkpoint(self, step: int) -> None:
        """Write a checkpoint; what follows in sync mode depends on the seed and the step alone."""
        self._algorithm.checkpoint_boundary()
        try:
            with self._run.writing_checkpoint(step) as temporary:
                CheckpointFolder(temporary).write(self._algorithm, self._config, step)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; go on with {self._resume}") from error
        self._saved = step
        self._run.prune(self._config.keep_checkpoints)
        self._progress.message(f"checkpoint {self._run.checkpoint(step)}")

    def _judge_if_due(self, step: int) -> None:
        """Validate and evaluate where that is due and was not done before the run was resumed."""
        judged = self._scores.judged
        due = _crossed(judged, step, self._config.eval_freq) or step >= self._config.steps > judged
        if not due or self._stopped_by is not None:
            return
        figures = self._validate(step)
        if self._config.env is not None:
            figures |= self._evaluate(step)
        wanted = self._config.best_metric
        if wanted is not None and wanted not in figures and not judged:
            listed = ", ".join(figures) or "no figures"
            self._progress.message(f"--best_metric={wanted} is not measured; there are {listed}")
        self._rate(step, figures)

    def _rate(self, step: int, figures: dict[str, float]) -> None:
        """Keep the checkpoint of a step as the best, if its figures are."""
        best = self._config.save_checkpoint and self._scores.is_best(figures)
        if best:
            if self._saved != step:
                self._checkpoint(step)
            self._run.mark_best(step)
        self._scores.note(figures, step, best=best)
        if best:
            name, value = self._scores.metric, self._scores.value
            self._progress.message(f"best so far: {name} {value:.4g} at step {step}")

    def _validate(self, step: int) -> dict[str, float]:
        """Measure the losses on held-out episodes, if the algorithm can."""
        began_s = time.monotonic()
        figures = self._algorithm.validate()
        seconds = time.monotonic() - began_s
        if figures:
            self._show_judgement(step, figures)
            named = {name.removeprefix("validation/"): value for name, value in figures.items()}
            listed = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            self._progress.message(f"validated at step {step}: {listed} in {seconds:.1f} s")
        elif self._config.validation.is_asked_for and not self._scores.judged:
            kind = self._config.policy.type
            self._progress.message(f"{kind} has no figures on held-out episodes to validate by")
        return figures

    def _evaluate(self, step: int) -> dict[str, float]:
        config = self._config
        assert config.env is not None
        folder = self._run.eval / f"step_{step:06d}"
        if self._saved == step:
            policy = self._run.checkpoint(step) / PRETRAINED_MODEL
        else:
            policy = folder / "policy"
            self._algorithm.save_pretrained(policy)
        evaluation = evaluate_checkpoint(
            policy,
            config.env,
            config.eval,
            seed=config.seed,
            video_folder=folder / "videos" if config.eval.max_episodes_rendered else None,
            device=evaluation_device(config),
        )
        shutil.rmtree(folder / "policy", ignore_errors=True)
        self._record_evaluation(step, folder, evaluation)
        return evaluation.metrics

    def _record_evaluation(self, step: int, folder: Path, evaluation: Evaluation) -> None:
        assert self._config.env is not None
        metrics = evaluation.metrics
        self._show_judgement(step, metrics)
        path = evaluation.save(folder, self._config.env)
        self._tracker.log_artifact(path, f"eval/step_{step:06d}")
        for episode in evaluation.episodes:
            if episode.video_path is not None:
                self._tracker.log_artifact(Path(episode.video_path), f"eval/step_{step:06d}")
        rate = metrics.get("eval/success_rate")
        success = "" if rate is None else f"success {rate:.0%}, "
        self._progress.message(
            f"evaluated at step {step}: {success}return {metrics['eval/return_mean']:.2f} over "
            f"{len(evaluation.episodes)} episodes in {evaluation.seconds:.1f} s, "
            f"{metrics['eval/act_ms_p50']:.3g} ms per action"
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


def _num_cpus(config: TrainConfig) -> int:
    """Return the Ray CPUs that a run needs at once."""
    learners = config.learners
    decoders = config.num_workers * max(1, learners.num_learners)
    runners = config.runners.num_env_runners + config.eval.num_env_runners
    share = math.ceil(learners.num_learners * learners.num_cpus_per_learner)
    return 1 + runners + share + decoders


def _open_tracker(config: TrainConfig, run: RunDirectory) -> NullTracker:
    tags = {}
    if config.dataset is not None:
        tags["dataset"] = config.dataset.repo_id or str(config.dataset.root)
    name = str(config.job_name)
    return open_tracker(config.mlflow, run, params=encode(config), run_name=name, tags=tags)


def _crossed(before: int, after: int, frequency: int) -> bool:
    """Tell whether a multiple of a frequency lies in (before, after]; never for frequency 0."""
    return frequency > 0 and after // frequency > before // frequency


__all__ = ["Training", "run"]
