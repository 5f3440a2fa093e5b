"""`leray train`: one run from its config to its last checkpoint."""

import datetime
import functools
import math

from leray.platform.cluster import connect
from leray.platform.config import TrainConfig
from leray.platform.home.home import open_home
from leray.platform.run_directory import RunDirectory
from leray.platform.signals import stop_signals
from leray.platform.training import Training


def run(config: TrainConfig) -> None:
    """Train; returns when the steps are done.

    Raises:
        LerayError: something given is wrong, or a checkpoint could not be written.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
    """
    config.output_dir = config.output_dir or config.default_output_dir(datetime.datetime.now())
    with open_home(config.output_dir, resume=config.resume, keep=config.keep_checkpoints) as home:
        run_directory = RunDirectory.create(home.local, resume=config.resume, address=home.address)
        connect(num_cpus=num_cpus(config))
        with (
            Training(config, run_directory) as training,
            stop_signals(functools.partial(_stop, training)),
        ):
            while not training.done:
                training.advance()
    if training.stopped_by is not None:
        print(
            f"stopped by {training.stopped_by} at step {training.step}; "
            f"go on with\n  {training.resume_command}"
        )
        raise KeyboardInterrupt


def _stop(training: Training, name: str) -> None:
    """Stop after a checkpoint on the first signal, at once on the second."""
    if training.stopped_by is not None:
        raise KeyboardInterrupt
    training.request_stop(name)
    training.say(f"{name}: saving a checkpoint, then stopping")


def num_cpus(config: TrainConfig) -> int:
    """Return the Ray CPUs that a run needs at once."""
    learners = config.learners
    decoders = config.num_workers * max(1, learners.num_learners)
    runners = config.runners.total_cpus + config.eval.num_env_runners
    share = math.ceil(learners.num_learners * learners.num_cpus_per_learner)
    return 1 + runners + share + decoders
