"""One trial of a sweep: a training run that Ray Tune starts, looks at, stops and starts again."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from leray.files import write_json
from leray.platform.cluster import quiet_ray
from leray.platform.fork import fork
from leray.platform.run_directory import RunDirectory
from leray.platform.training import Training
from leray.tune.config import SweepConfig, trial_config
from leray.tune.folder import SweepFolder, last_figures
from leray.tune.space import VALUES

POINTER = "run.json"
"""What a checkpoint of Ray Tune's consists of: which run it is of, and how far that is."""


class TrainTrial(Trainable):  # type: ignore[misc]
    """Runs `Training` in a folder of the sweep; started again, it goes on where that folder is.

    Each `step` trains up to the next judgement. The result of Ray Tune's is flat: every figure
    under its own name, and `step`, which counts environment steps, or updates offline.
    """

    def setup(self, config: dict[str, Any], *, sweep: SweepConfig, root: str) -> None:
        """Note what to train; the run itself is opened by the first `step`."""
        quiet_ray()
        self._sweep, self._folder = sweep, SweepFolder(Path(root))
        self._values: dict[str, Any] = config[VALUES]
        self._training: Training | None = None
        self._opened = ExitStack()
        self._figures: dict[str, float] = {}

    def step(self) -> dict[str, Any]:
        """Train up to the next judgement, or to the end."""
        training = self._training or self._open()
        figures: dict[str, float] = {}
        while not training.done and not figures:
            figures = training.advance()
        self._figures |= figures
        figures = {**training.metrics, **self._figures}
        return {**figures, "step": training.step, "done": training.done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Point at the run; its own checkpoint is written first."""
        training = self._training or self._open()
        training.save()
        token = f"{self.trial_id}-{training.step}-{self.iteration}"
        pointer = {"run": str(self._run), "step": training.step, "token": token}
        write_json(Path(checkpoint_dir) / POINTER, pointer)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from the run that is pointed at; this trial's own run does so by itself."""
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        donor, taken = Path(pointer["run"]), self._run / "logs" / "forks.json"
        forks = json.loads(taken.read_text())["tokens"] if taken.is_file() else []
        if donor == self._run or pointer["token"] in forks:
            return
        self._close()
        run = RunDirectory.create(self._run, resume=self._is_begun)
        fork(RunDirectory(donor), run)
        write_json(taken, {"tokens": [*forks, pointer["token"]]})

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, or the same one with other values, in the same process."""
        self._close()
        self._values, self._figures = new_config[VALUES], {}
        return True

    def cleanup(self) -> None:
        """Stop; a run that is not done leaves a checkpoint."""
        training = self._training
        if training is not None and not training.done:
            training.request_stop("the sweep")
            training.advance()
        self._close()

    @property
    def _run(self) -> Path:
        return self._folder.trial(self.trial_id)

    @property
    def _is_begun(self) -> bool:
        return RunDirectory(self._run).config_file.is_file()

    def _open(self) -> Training:
        config = trial_config(self._sweep, self._values)
        config.mlflow.register_as = None  # the sweep registers the best of all
        config.output_dir = self._run
        config.job_name = f"{self._folder.root.name}_{self.trial_id}"
        config.resume = self._is_begun
        run = RunDirectory.create(self._run, resume=config.resume)
        with ExitStack() as opened:
            log = opened.enter_context((run.logs / "train.log").open("a", buffering=1))
            training = opened.enter_context(
                Training(config, run, stream=log, parent_id_file=self._folder.mlflow_run_id)
            )
            self._opened = opened.pop_all()
        self._training = training
        self._figures = last_figures(run, training.step)
        return training

    def _close(self) -> None:
        self._training = None
        self._opened.close()
