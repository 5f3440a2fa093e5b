"""The schedulers: Ray Tune's own, over steps, with values that stay in their domains."""

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from leray.tune.config import SchedulerConfig, SweepConfig
from leray.tune.schedulers import make_scheduler
from leray.tune.search import make_search
from leray.tune.space import VALUES

METRIC = "eval/return_mean"
TRAIN: dict[str, Any] = {
    "policy": {"type": "sac"},
    "env": {"type": "gym", "task": "Reach-v0"},
    "steps": 1000,
    "eval_freq": 100,
}
SPACE: dict[str, Any] = {
    "policy.actor_lr": {"loguniform": [1e-4, 1e-2]},
    "policy.bc_weight": {"uniform": [1, 2]},
}
WIDE: dict[str, Any] = {**SPACE, "batch_size": {"int": [8, 16]}, "policy.grad_clip_norm": 10.0}


def make(type_: str, space: dict[str, Any] = SPACE, **options: Any) -> Any:
    sweep = SweepConfig(
        train=TRAIN,
        space=space,
        metric=METRIC,
        scheduler=SchedulerConfig(type=type_, **options),
    )
    return make_scheduler(sweep)


class Controller:
    """What schedulers ask of Ray Tune: which trials there are."""

    search_alg = None

    def get_live_trials(self) -> list[Any]:
        return []


def report(scheduler: Any, trial: Any, step: int, value: float) -> str:
    result = {"step": step, METRIC: value}
    decision: str = scheduler.on_trial_result(Controller(), trial, result)
    return decision


class Trial:
    """A trial as far as ASHA and the median rule look at it."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def trials(scheduler: Any, count: int) -> list[Trial]:
    made = [Trial(f"t{number}") for number in range(count)]
    for trial in made:
        scheduler.on_trial_add(Controller(), trial)
    return made


def test_none_lets_every_trial_run():
    assert type(make("none")) is FIFOScheduler


def test_asha_stops_who_is_behind_at_the_same_step():
    scheduler = make("asha", grace_steps=200, reduction_factor=2)
    good, poor = trials(scheduler, 2)
    assert report(scheduler, good, 100, 1.0) == TrialScheduler.CONTINUE
    assert report(scheduler, poor, 100, 0.0) == TrialScheduler.CONTINUE
    assert report(scheduler, good, 200, 1.0) == TrialScheduler.CONTINUE
    assert report(scheduler, poor, 200, 0.0) == TrialScheduler.STOP
    assert report(scheduler, good, 900, 1.0) == TrialScheduler.CONTINUE
    assert report(scheduler, good, 1000, 1.0) == TrialScheduler.STOP


def test_asha_looks_first_at_the_first_evaluation():
    scheduler = make("asha", reduction_factor=2)
    good, poor = trials(scheduler, 2)
    assert report(scheduler, good, 100, 1.0) == TrialScheduler.CONTINUE
    assert report(scheduler, poor, 100, 0.0) == TrialScheduler.STOP


def test_median_stops_who_is_below_the_others_and_puts_nobody_aside():
    scheduler = make("median", grace_steps=200)
    *others, poor = trials(scheduler, 4)
    for step in (100, 200):
        for trial in others:
            assert report(scheduler, trial, step, 1.0) == TrialScheduler.CONTINUE
    assert report(scheduler, poor, 100, 0.0) == TrialScheduler.CONTINUE
    assert report(scheduler, poor, 200, 0.0) == TrialScheduler.STOP


def explored(scheduler: Any, values: dict[str, Any], count: int) -> list[dict[str, Any]]:
    best = SimpleNamespace(config={VALUES: values, "sweep": "kept"})
    found = []
    for _ in range(count):
        config, _ = scheduler._get_new_config(None, best)
        assert config["sweep"] == "kept"
        found.append(config[VALUES])
    return found


def test_pbt_stays_in_the_domains_and_keeps_whole_numbers_whole():
    random.seed(0)
    values = {
        "policy.actor_lr": 9.9e-3,
        "policy.bc_weight": 1.01,
        "batch_size": 16,
        "policy.grad_clip_norm": 10.0,
    }
    found = explored(make("pbt", WIDE), values, 300)
    for each in found:
        assert 1e-4 <= each["policy.actor_lr"] <= 1e-2
        assert 1 <= each["policy.bc_weight"] <= 2
        assert 8 <= each["batch_size"] <= 16
        assert type(each["batch_size"]) is int
        assert each["policy.grad_clip_norm"] == 10.0
    assert {each["policy.actor_lr"] for each in found} > {1e-2, 9.9e-3 * 0.8}
    assert {each["batch_size"] for each in found} > {8, 13, 16}  # drawn anew, * 0.8, * 1.2


def test_pbt_moves_along_a_list():
    random.seed(0)
    scheduler = make("pbt", {"batch_size": {"choice": [8, 16, 32, 64]}}, resample_probability=0)
    found = [each["batch_size"] for each in explored(scheduler, {"batch_size": 16}, 50)]
    assert set(found) == {8, 32}


def test_pbt_takes_its_interval_from_the_evaluations():
    assert make("pbt")._perturbation_interval == 100
    assert make("pb2", perturbation_steps=300)._perturbation_interval == 300


@pytest.mark.parametrize("type_", ["asha", "median", "pbt", "pb2"])
def test_schedulers_survive_being_saved(type_):
    again = cloudpickle.loads(cloudpickle.dumps(make(type_)))
    assert again._metric == METRIC
    assert again._time_attr == "step"


def climb() -> type[tune.Trainable]:
    """Return the class in a form that workers get by value."""

    class Climb(tune.Trainable):
        """Gains as much as its rate allows; a clone goes on from the height it was given."""

        def setup(self, config: dict[str, Any]) -> None:
            self._rate = config[VALUES]["policy.actor_lr"]
            self._height, self._steps = 0.0, 0

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.setup(config)
            return True

        def step(self) -> dict[str, Any]:
            self._steps += 100
            self._height += self._rate
            return {METRIC: self._height, "step": self._steps, "done": self._steps >= 600}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            with open(f"{checkpoint_dir}/state.json", "w") as file:
                json.dump([self._height, self._steps], file)

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            with open(f"{checkpoint_dir}/state.json") as file:
                self._height, self._steps = json.load(file)

    return Climb


@pytest.mark.ray
@pytest.mark.parametrize("type_", ["pbt", "pb2"])
def test_a_population_exchanges_what_works(ray_session, tmp_path, type_):
    sweep = SweepConfig(
        train={**TRAIN, "steps": 600},
        space=SPACE,
        metric=METRIC,
        num_trials=3,
        scheduler=SchedulerConfig(type=type_, perturbation_steps=100),
    )
    found, scheduler = make_search(sweep), make_scheduler(sweep)
    tuner = tune.Tuner(
        tune.with_resources(climb(), {"cpu": 4}),  # one at a time, in turns
        param_space=found.param_space,
        tune_config=tune.TuneConfig(
            search_alg=found.algorithm,
            scheduler=scheduler,
            num_samples=found.num_samples,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    assert len(results) == 3
    exchanges = (tmp_path / "sweep" / "pbt_global.txt").read_text().splitlines()
    assert exchanges
    for line in exchanges:
        new = json.loads(line)[-1][VALUES]
        assert all(new[v.key] in v.domain for v in sweep.search_space().variables)
