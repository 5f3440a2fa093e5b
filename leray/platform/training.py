"""One training run: the loop that `leray train` and sweeps drive."""

import logging
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ray.exceptions import RayActorError

from leray.errors import CheckpointError, LearnerError
from leray.platform.build import build_algorithm, evaluation_device, pretrained_folder
from leray.platform.checkpoint import CheckpointFolder, read_counters
from leray.platform.config import TrainConfig
from leray.platform.evaluation import Evaluation, evaluate_checkpoint
from leray.platform.parsing import dump
from leray.platform.progress import Progress
from leray.platform.run_directory import PRETRAINED_MODEL, TRAINING_STATE, RunDirectory
from leray.platform.run_tracking import open_run_tracker
from leray.platform.scores import Scores

logger = logging.getLogger(__name__)

LOST = "a learner was lost: go on from the last checkpoint"


class Training:
    """The loop around an algorithm: metrics, judgement, checkpoints, restarts.

    Entering builds the algorithm, at the last checkpoint of the run's folder if it has one; leaving
    lets go of everything.

    Args:
        config: the resolved config.
        run_directory: the run's folder.
        stream: where progress is written; None takes standard output.
        parent_id_file: file that holds the MLflow run this one is nested under.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_directory: RunDirectory,
        *,
        stream: IO[str] | None = None,
        parent_id_file: Path | None = None,
    ) -> None:
        self._config = config
        self._run = run_directory
        self._stream = stream
        self._parent_id_file = parent_id_file
        self._built = ExitStack()
        self._lost_learners = 0
        self.step = 0
        """Environment steps, or updates offline, taken so far."""
        self.metrics: dict[str, float] = {}
        """The newest figures of training."""
        self.done = False
        """Whether nothing is left to do: the steps are taken, or a stop was asked for."""
        self.stopped_by: str | None = None
        """Who asked for a stop."""

    def __enter__(self) -> Self:
        """Build the algorithm and open the record."""
        config = self._config
        with ExitStack() as built:
            built.callback(self._built.close)
            notes = self._start()
            self._run.save_config(dump(config))
            self._tracker = open_run_tracker(config, self._run, self._parent_id_file)
            built.pop_all()
        unit = "step" if config.use_online_training else "update"
        self._progress = Progress(config.steps, self.step, self._stream, unit=unit)
        for note in [*notes, f"run folder {self._run.address}"]:
            self._progress.message(note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the record with the status that fits, and stop the algorithm."""
        stopped = self.stopped_by or (kind is not None and issubclass(kind, KeyboardInterrupt))
        with self._built:
            self._progress.close()
            self._tracker.finish("KILLED" if stopped else "FINISHED" if kind is None else "FAILED")

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        return f"leray train --resume=true --output_dir={self._run.address}"

    def advance(self) -> dict[str, float]:
        """Train up to the next report, checkpoint or judgement, and make it.

        Where a learner is lost, training goes on from the last checkpoint with new ones.

        Returns:
            The figures that the policy was judged by; empty where no judgement was due.

        Raises:
            LerayError: too many learners were lost, or a checkpoint could not be written.
        """
        lost = False
        while True:
            try:
                if lost:
                    self._start()
                return self._advance()
            except (LearnerError, RayActorError) as error:
                self._count_loss(error)
                lost = True

    def request_stop(self, reason: str) -> None:
        """Let `advance` save a checkpoint and return soon; nothing more is done after that."""
        self.stopped_by = reason
        self._algorithm.stop_requested = True

    def save(self) -> None:
        """Write a checkpoint of where training is, unless there is one."""
        if self._config.save_checkpoint and self._saved != self.step:
            self._checkpoint(self.step)

    def say(self, text: str) -> None:
        """Show one line."""
        self._progress.message(text)

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
        self._built.callback(algorithm.stop)
        if checkpoint is not None:
            state = checkpoint[1] / TRAINING_STATE
            algorithm.load_training_state(state, read_counters(checkpoint[1]))
        self._algorithm = algorithm
        self.step = algorithm.progress
        self._saved = self.step if checkpoint else None
        self._scores = Scores(self._run, config.best_metric, step=self.step)
        return notes

    def _count_loss(self, error: Exception) -> None:
        """Let go of an algorithm that lost a learner; raise if that happened too often."""
        self._lost_learners += 1
        lost, limit = self._lost_learners, self._config.learners.max_restarts
        reason = str(error) if isinstance(error, LearnerError) else LOST
        self._abandon()
        if lost > limit or self.stopped_by is not None:
            raise LearnerError(
                f"{reason} with {self.resume_command} (after {lost - 1} restarts, of "
                f"--learners.max_restarts={limit})"
            ) from error
        checkpoint = self._run.last_checkpoint()
        step = checkpoint[0] if checkpoint else 0
        self._progress.message(f"{reason}, step {step} (restart {lost} of {limit})")

    def _abandon(self) -> None:
        """Let go of an algorithm that lost a learner; what fails then does not matter any more."""
        try:
            self._built.close()
        except Exception as error:  # RLlib may ask the dead learner
            logger.debug("stopping after a lost learner: %s", error)

    def _advance(self) -> dict[str, float]:
        config = self._config
        before = self.step
        figures = self._judge_if_due(before)
        if not figures and before < config.steps and self.stopped_by is None:
            self._train_until(self._next_mark(before))
            step = self.step = self._algorithm.progress
            done = step >= config.steps
            if _crossed(before, step, config.log_freq) or done:
                self._report(step)
            if config.save_checkpoint and (
                _crossed(before, step, config.save_freq) or done or self.stopped_by
            ):
                self._checkpoint(step)
            figures = self._judge_if_due(step)
        if self.step >= config.steps or self.stopped_by is not None:
            self.save()
            self.done = True
            if self.stopped_by is None:
                self._keep_policies()
        return figures

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
        while algorithm.progress < mark and self.stopped_by is None:
            algorithm.train()
            seconds = time.monotonic() - began_s
            updates_per_s = (algorithm.num_updates - first_update) / seconds
            self.metrics["time/updates_per_s"] = updates_per_s
            if self._config.use_online_training:
                steps = algorithm.env_steps - first_step
                self.metrics["time/env_steps_per_s"] = steps / seconds
            else:
                samples_per_s = updates_per_s * self._config.samples_per_update
                self.metrics["time/samples_per_s"] = samples_per_s
            if self._progress.is_live:
                self._progress.update(algorithm.progress, self.metrics)

    def _report(self, step: int) -> None:
        self.metrics |= self._algorithm.report()
        self._progress.update(step, self.metrics)
        counts = {
            "train/env_steps": self._algorithm.env_steps,
            "train/updates": self._algorithm.num_updates,
        }
        self._tracker.log_metrics(self.metrics | counts, step)

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
            raise CheckpointError(f"{error}; go on with {self.resume_command}") from error
        self._saved = step
        self._run.prune(self._config.keep_checkpoints)
        self._progress.message(f"checkpoint {self._run.checkpoint(step)}")

    def _keep_policies(self) -> None:
        """Hand over the best and the last policy to MLflow, where that is asked for."""
        best, last = self._run.best_checkpoint(), self._run.last_checkpoint()
        for name, found in (("best", best), ("last", last)):
            if found is not None:
                self._tracker.log_checkpoint(found[1] / PRETRAINED_MODEL, name)
        if (chosen := best or last) is not None:
            self._tracker.register_policy(chosen[1] / PRETRAINED_MODEL)

    def _judge_if_due(self, step: int) -> dict[str, float]:
        """Validate and evaluate where that is due and was not done before the run was resumed."""
        judged = self._scores.judged
        due = _crossed(judged, step, self._config.eval_freq) or step >= self._config.steps > judged
        if not due or self.stopped_by is not None:
            return {}
        figures = self._validate(step)
        if self._config.env is not None:
            figures |= self._evaluate(step)
        wanted = self._config.best_metric
        if wanted is not None and wanted not in figures and not judged:
            listed = ", ".join(figures) or "no figures"
            self._progress.message(f"--best_metric={wanted} is not measured; there are {listed}")
        self._rate(step, figures)
        return figures

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


def _crossed(before: int, after: int, frequency: int) -> bool:
    """Tell whether a multiple of a frequency lies in (before, after]; never for frequency 0."""
    return frequency > 0 and after // frequency > before // frequency
