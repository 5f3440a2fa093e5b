"""`leray sweep`: many trainings, compared."""

import dataclasses
import datetime
import math
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from leray.errors import ConfigError
from leray.files import write_atomic
from leray.platform.cluster import connect
from leray.platform.config import TrainConfig
from leray.platform.home.store import remote_url
from leray.platform.parsing import dump, encode
from leray.platform.run_directory import RunDirectory
from leray.platform.run_tracking import deliver_rest
from leray.platform.signals import stop_signals
from leray.platform.sweep_tracking import SweepTracker
from leray.platform.tracking import count_undelivered
from leray.tune.config import SweepConfig, trial_config
from leray.tune.folder import SweepFolder
from leray.tune.records import TrialRecord
from leray.tune.report.csv_file import write_csv
from leray.tune.report.importance import importance
from leray.tune.report.live import LiveTable
from leray.tune.report.page import write_page
from leray.tune.report.ranking import has_repeats, ranked
from leray.tune.report.table import repeats_table, text_table
from leray.tune.report.values import is_log, number
from leray.tune.resources import bundles, request
from leray.tune.space import Range, Space

ENDED = ("finished", "stopped", "failed")
SETTINGS = {
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial has its own record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # what a killed sweep forgets of its trials
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray Tune's settings; those already in the environment are kept."""


def run(config: SweepConfig) -> int:
    """Run a sweep, or go on with one; returns 1 if every trial failed.

    Raises:
        LerayError: something given is wrong, or the results could not be written.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after checkpoints of all trials.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    root = config.output_dir or config.default_output_dir(datetime.datetime.now())
    if remote_url(root) is not None:
        raise ConfigError(
            f"--output_dir={config.output_dir}: trials share one folder; give a path that all "
            "nodes have, such as one on a network file system"
        )
    folder = SweepFolder(Path(root).absolute())
    _make_folder(folder, config)
    first = trial_config(config, config.search_space().sample(1, config.seed)[0])
    connect(num_cpus=_num_cpus(config, first))
    register_as = config.register_as or first.mlflow.register_as
    mlflow = dataclasses.replace(first.mlflow, register_as=register_as)
    tracker = SweepTracker(mlflow, folder.root, name=str(config.job_name), params=_params(config))
    with tracker:
        tracker.wait_for_run()
        stopped_by: list[str] = []

        def stop(name: str) -> None:
            stopped_by.append(name)
            signal.raise_signal(signal.SIGUSR1)  # Ray Tune's own handler of Ctrl-C does not tell

        with stop_signals(stop):
            records = Sweep(config, folder, first, tracker).run()
        _deliver(records, tracker)
        _write_results(config, folder, records, tracker)
        if stopped_by:
            print(
                f"stopped by {stopped_by[0]}; go on with\n"
                f"  leray sweep --resume=true --output_dir={folder.root}"
            )
            raise KeyboardInterrupt
    return 0 if any(record.status != "failed" for record in records) else 1


class Sweep:
    """The part that Ray Tune does.

    Args:
        config: the sweep.
        folder: its folder, which may hold a sweep to go on with.
        first: training config of a trial, for what it needs of the cluster.
        tracker: told of the best trial whenever one has ended.
    """

    def __init__(
        self, config: SweepConfig, folder: SweepFolder, first: TrainConfig, tracker: SweepTracker
    ) -> None:
        self._config, self._folder, self._first, self._tracker = config, folder, first, tracker
        self._ended = -1

    def run(self) -> list[TrialRecord]:
        """Run all trials to their ends and return their records."""
        from ray import tune

        from leray.tune.schedulers import make_scheduler
        from leray.tune.search import make_search
        from leray.tune.trial import TrainTrial
        from leray.tune.watch import Watch

        config, search = self._config, make_search(self._config)
        is_known = any(self._folder.tune.glob("experiment_state-*.json"))
        with LiveTable(
            metric=config.metrics[0], mode=config.modes[0], total=search.num_trials
        ) as self._table:
            watch = Watch(config, self._folder, self._show)
            tune.run(
                tune.with_parameters(TrainTrial, sweep=config, root=str(self._folder.root)),
                name=self._folder.tune.name,
                storage_path=str(self._folder.root),
                config=search.param_space,
                num_samples=search.num_samples,
                search_alg=search.algorithm,
                scheduler=make_scheduler(config),
                resources_per_trial=request(config.resources, self._first),
                max_failures=config.max_failures,
                reuse_actors=True,
                time_budget_s=config.time_budget_s,
                trial_dirname_creator=lambda trial: trial.trial_id,
                callbacks=[watch],
                resume="AUTO+ERRORED" if is_known else None,
                raise_on_failed_trial=False,
                verbose=0,
            )
        return list(watch.records.values())

    def _show(self, records: Sequence[TrialRecord]) -> None:
        self._table.update(records)
        ended = sum(record.status in ENDED for record in records)
        if ended != self._ended:
            self._ended = ended
            best = ranked(records, mode=self._config.modes[0])[:1]
            figures = dict(best[0].metrics) if best else {}
            self._tracker.log_trials(
                finished=ended, best=best[0].best if best else None, figures=figures
            )


def _make_folder(folder: SweepFolder, config: SweepConfig) -> None:
    """Make the folder of a new sweep, or check that there is one to go on with."""
    if config.resume:
        if not folder.config_file.is_file():
            raise ConfigError(
                f"{folder.root}: no sweep to resume, {folder.config_file.name} is not there"
            )
    elif folder.root.exists() and any(folder.root.iterdir()):
        raise ConfigError(
            f"--output_dir={folder.root}: exists and is not empty; choose another folder, or give "
            "--resume=true to go on with the sweep in it"
        )
    folder.root.mkdir(parents=True, exist_ok=True)
    write_atomic(folder.config_file, dump(config).encode())


def _params(config: SweepConfig) -> dict[str, object]:
    """Return what MLflow is told of the sweep itself; each trial has the options in full."""
    plain = encode(config)
    return {name: value for name, value in plain.items() if name not in ("output_dir", "resume")}


def _num_cpus(config: SweepConfig, first: TrainConfig) -> int:
    """Return the Ray CPUs that one trial needs."""
    return math.ceil(sum(bundle.get("CPU", 0) for bundle in bundles(config.resources, first)))


def _deliver(records: Sequence[TrialRecord], tracker: SweepTracker) -> None:
    """Send what trials could not deliver to MLflow before they ended; the first failure ends it."""
    for record in records:
        if record.run is None or record.status not in ENDED:
            continue
        run = RunDirectory(record.run)
        if count_undelivered(run) and deliver_rest(run, parent_id_file=tracker.parent_id_file):
            return


def _write_results(
    config: SweepConfig,
    folder: SweepFolder,
    records: Sequence[TrialRecord],
    tracker: SweepTracker,
) -> None:
    """Write the tables, copy the best checkpoint, and say where all that is."""
    metric, mode = config.metrics[0], config.modes[0]
    records = ranked(records, mode=mode)
    print(text_table(records, metric=metric, mode=mode))
    if has_repeats(records):
        print(repeats_table(records, metric=metric, mode=mode))
    write_csv(records, folder.csv, metric=metric)
    log_keys = _log_keys(config.search_space())
    write_page(
        records,
        folder.page,
        metric=metric,
        mode=mode,
        title=str(config.job_name),
        importance=importance(records, mode=mode, log_keys=log_keys),
        log_keys=log_keys,
    )
    for path in (folder.csv, folder.page):
        tracker.log_artifact(path)
    best = next((record for record in records if record.best is not None), None)
    if best is not None and best.run is not None:
        _copy_best(best.run, folder.best)
        print(f"best: {metric} {best.best:.4g} by trial {best.trial_id}, copied to {folder.best}")
        tracker.register_policy(folder.best / "pretrained_model")
    print(f"results: {folder.page}")
    sys.stdout.flush()


def _log_keys(space: Space) -> set[str]:
    """Return the keys that are searched on a logarithmic scale; of lists, by their values."""
    found = set()
    for variable in space.variables:
        domain = variable.domain
        if isinstance(domain, Range):
            is_logarithmic = domain.is_log
        else:
            numbers = [value for value in map(number, domain.values) if value is not None]
            is_logarithmic = is_log(variable.key, numbers, None)
        if is_logarithmic:
            found.add(variable.key)
    return found


def _copy_best(run: Path, target: Path) -> None:
    """Copy a run's best checkpoint, or its last where none is marked."""
    directory = RunDirectory(run)
    found = directory.best_checkpoint() or directory.last_checkpoint()
    if found is not None:
        temporary = target.with_name(f".{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(found[1], temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
