"""`leray train`: one run from its config to its last checkpoint."""

import datetime
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from leray.platform.cluster import connect
from leray.platform.config import TrainConfig
from leray.platform.home.home import open_home
from leray.platform.run_directory import RunDirectory
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
        with Training(config, run_directory) as training, _signals(training):
            while not training.done:
                training.advance()
    if training.stopped_by is not None:
        print(
            f"stopped by {training.stopped_by} at step {training.step}; "
            f"go on with\n  {training.resume_command}"
        )
        raise KeyboardInterrupt


@contextmanager
def _signals(training: Training) -> Iterator[None]:
    """Stop after a checkpoint on the first Ctrl-C or SIGTERM, at once on the second."""

    def ask(number: int, _: object) -> None:
        if training.stopped_by is not None:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        training.request_stop(name)
        training.say(f"{name}: saving a checkpoint, then stopping")

    previous = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def num_cpus(config: TrainConfig) -> int:
    """Return the Ray CPUs that a run needs at once."""
    learners = config.learners
    decoders = config.num_workers * max(1, learners.num_learners)
    runners = config.runners.total_cpus + config.eval.num_env_runners
    share = math.ceil(learners.num_learners * learners.num_cpus_per_learner)
    return 1 + runners + share + decoders
