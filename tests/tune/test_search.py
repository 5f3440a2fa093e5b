"""The searches: what they suggest, what they learn, and that they go on where they were."""

import math
import statistics
from typing import Any

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter, SearchGenerator

from leray.tune.config import SweepConfig
from leray.tune.search import make_search
from leray.tune.space import VALUES

TRAIN: dict[str, Any] = {
    "policy": {"type": "sac"},
    "env": {"type": "gym", "task": "Reach-v0"},
    "steps": 1000,
    "eval_freq": 100,
}
METRIC = "eval/return_mean"
VALLEY: dict[str, Any] = {
    "policy.actor_lr": {"uniform": [0.01, 1.0]},
    "policy.bc_weight": {"uniform": [0, 10]},
    "policy.bc_q_filter": {"choice": [True, False]},
    "policy.her_ratio": {"uniform": [0, 1], "when": {"policy.bc_q_filter": True}},
}


def optuna_sweep(space: dict[str, Any], **options: Any) -> SweepConfig:
    options = {"metric": METRIC, "search": "optuna", "num_trials": 30, **options}
    return SweepConfig(train=TRAIN, space=space, **options)


def depth(values: dict[str, Any]) -> float:
    """Return how deep in the valley a configuration is; the best is 0, with a filter of 0.8."""
    away = (values["policy.actor_lr"] - 0.3) ** 2 + (values["policy.bc_weight"] / 10 - 0.6) ** 2
    if not values["policy.bc_q_filter"]:
        return -(0.5 + away)
    return -(away + (values["policy.her_ratio"] - 0.8) ** 2)


def run(searcher: Any, trials: range) -> list[dict[str, Any]]:
    """Try suggestions one after the other, as Ray Tune does."""
    tried = []
    for number in trials:
        values = searcher.suggest(f"t{number}")[VALUES]
        searcher.on_trial_complete(f"t{number}", result={METRIC: depth(values), "step": 1000})
        tried.append(values)
    return tried


def study_of(searcher: Any) -> Any:
    return searcher.searcher._ot_study


@pytest.mark.parametrize("search", ["random", "grid"])
def test_random_and_grid_give_tune_the_drawn_configurations(search):
    space = {"policy.actor_lr": {"uniform": [0.1, 1]}, "seed": {"grid": [0, 1]}}
    sweep = SweepConfig(train=TRAIN, space=space, search=search, num_trials=3)
    found = make_search(sweep)
    assert found.param_space == {VALUES: tune.grid_search(sweep.search_space().sample(3, seed=0))}
    assert (found.num_samples, found.num_trials) == (1, 6)


def test_what_is_limited_at_a_time():
    space = {"policy.actor_lr": {"uniform": [0.1, 1]}}
    sweep = SweepConfig(train=TRAIN, space=space, max_concurrent_trials=2)
    assert make_search(sweep).algorithm.max_concurrent == 2
    limited = make_search(optuna_sweep(space, max_concurrent_trials=2)).algorithm
    assert isinstance(limited, ConcurrencyLimiter)
    given = [limited.suggest(f"t{number}") for number in range(3)]
    assert [each is None for each in given] == [False, False, True]


def test_optuna_finds_the_valley_better_than_chance():
    best = {}
    for search in ("optuna", "random"):
        found = []
        for seed in range(5):
            sweep = optuna_sweep(VALLEY, search=search, seed=seed, num_trials=60)
            if search == "optuna":
                tried = run(make_search(sweep).algorithm, range(60))
            else:
                tried = sweep.search_space().sample(60, seed)
            for values in tried:
                assert ("policy.her_ratio" in values) == values["policy.bc_q_filter"]
            found.append(max(depth(values) for values in tried))
        best[search] = statistics.mean(found)
    assert best["optuna"] > -0.01
    assert best["optuna"] > best["random"] / 2  # both are negative


def test_optuna_repeats_itself_for_a_seed():
    first, again = (make_search(optuna_sweep(VALLEY)).algorithm for _ in range(2))
    other = make_search(optuna_sweep(VALLEY, seed=1)).algorithm
    tried = run(first, range(15))
    assert tried == run(again, range(15))
    assert tried != run(other, range(15))


def test_every_domain_is_suggested_within_bounds():
    space = {
        "policy.actor_lr": {"loguniform": [1e-4, 1e-2]},
        "batch_size": {"logint": [8, 64]},
        "policy.num_critics": {"int": [2, 3]},
        "policy.actor_network_kwargs.hidden_dims": {"choice": [[8], [16, 16]]},
        "policy.grad_clip_norm": {"choice": [None, 10.0]},
        "policy.n_step": 2,
    }
    searcher = make_search(optuna_sweep(space, num_trials=40)).algorithm
    space_ = optuna_sweep(space).search_space()
    tried = []
    for number in range(40):
        values = searcher.suggest(f"t{number}")[VALUES]
        searcher.on_trial_complete(f"t{number}", result={METRIC: values["policy.actor_lr"]})
        assert all(values[key] in space_[key].domain for key in space)
        tried.append(values)
    assert {type(values["batch_size"]) for values in tried} == {int}
    assert {values["policy.num_critics"] for values in tried} == {2, 3}
    assert {values["policy.grad_clip_norm"] for values in tried} == {None, 10.0}
    assert {values["policy.n_step"] for values in tried} == {2}


def test_repeats_share_a_suggestion_and_are_scored_by_their_mean():
    space = {"policy.actor_lr": {"uniform": [0.1, 1]}, "seed": {"grid": [0, 1, 2]}}
    search = make_search(optuna_sweep(space, num_trials=4))
    assert (search.num_samples, search.num_trials) == (12, 12)
    searcher = search.algorithm
    values = {name: searcher.suggest(name)[VALUES] for name in "abcd"}
    assert [values[name]["seed"] for name in "abcd"] == [0, 1, 2, 0]
    rates = [values[name]["policy.actor_lr"] for name in "abcd"]
    assert rates[0] == rates[1] == rates[2] != rates[3]
    searcher.on_trial_complete("c", result={METRIC: 1.0})
    searcher.on_trial_complete("a", result={METRIC: 2.0})
    assert [trial.state.name for trial in study_of(searcher).trials] == ["RUNNING", "RUNNING"]
    searcher.on_trial_complete("b", result={METRIC: 6.0})
    assert study_of(searcher).trials[0].value == 3.0
    assert study_of(searcher).trials[0].params == {"policy.actor_lr": rates[0]}


def test_failed_repeats_are_left_out_and_where_all_fail_so_does_the_suggestion():
    space = {"policy.actor_lr": {"uniform": [0.1, 1]}, "seed": {"grid": [0, 1]}}
    searcher = make_search(optuna_sweep(space)).algorithm
    for name in "abcdef":
        searcher.suggest(name)
    searcher.on_trial_complete("a", error=True)
    searcher.on_trial_complete("b", result={METRIC: 4.0})
    searcher.on_trial_complete("c", result={METRIC: math.nan})
    searcher.on_trial_complete("d", result={"step": 10})
    searcher.on_trial_complete("e", result={METRIC: 1.0})
    searcher.on_trial_complete("f")  # stopped before its first report
    searcher.on_trial_complete("f", result={METRIC: 9.0})  # once is enough
    trials = study_of(searcher).trials
    assert [(trial.state.name, trial.value) for trial in trials] == [
        ("COMPLETE", 4.0),
        ("FAIL", None),
        ("COMPLETE", 1.0),
    ]
    assert searcher.suggest("g")[VALUES]["seed"] == 0


def test_several_metrics():
    space = {"policy.actor_lr": {"uniform": [0.1, 1]}, "policy.bc_weight": {"uniform": [0, 1]}}
    metric, mode = ["eval/return_mean", "eval/episode_length"], ["max", "min"]
    searcher = make_search(optuna_sweep(space, metric=metric, mode=mode)).algorithm
    for number in range(30):
        values = searcher.suggest(f"t{number}")[VALUES]
        cost, gain = (1 - values["policy.actor_lr"]) ** 2, values["policy.bc_weight"]
        searcher.on_trial_complete(
            f"t{number}", result=dict(zip(metric, [gain, cost], strict=True))
        )
    front = study_of(searcher).best_trials
    assert 1 <= len(front) < 30
    best = max(front, key=lambda trial: trial.values[0])
    assert best.params["policy.bc_weight"] == max(
        trial.params["policy.bc_weight"] for trial in study_of(searcher).trials
    )


def test_a_saved_search_goes_on_as_if_nothing_had_happened(tmp_path):
    space = {**VALLEY, "seed": {"grid": [0, 1]}}
    sweep = optuna_sweep(space, max_concurrent_trials=4)
    kept = SearchGenerator(make_search(sweep).algorithm)
    run(kept.searcher, range(14))
    open_trial = kept.searcher.suggest("open")[VALUES]  # the first of two
    kept.save_to_dir(str(tmp_path), "now")
    restored = SearchGenerator(make_search(sweep).algorithm)
    restored.restore_from_dir(str(tmp_path))
    ends = []
    for generator in (kept, restored):
        second = generator.searcher.suggest("second")[VALUES]
        assert second == {**open_trial, "seed": 1}
        generator.searcher.on_trial_complete("open", result={METRIC: -1.0})
        generator.searcher.on_trial_complete("second", result={METRIC: -2.0})
        assert study_of(generator.searcher.searcher).trials[-1].value == -1.5
        ends.append(run(generator.searcher, range(20, 34)))
    assert ends[0] == ends[1]


@pytest.mark.ray
@pytest.mark.parametrize("search", ["random", "optuna"])
def test_tune_runs_each_configuration_once(ray_session, tmp_path, search):
    sweep = optuna_sweep(
        {**VALLEY, "seed": {"grid": [0, 1]}},
        search=search,
        num_trials=2,
        max_concurrent_trials=1,
    )
    found = make_search(sweep)

    def objective(config):
        tune.report({METRIC: -config[VALUES]["policy.actor_lr"], "step": 1000})

    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space=found.param_space,
        tune_config=tune.TuneConfig(
            search_alg=found.algorithm, num_samples=found.num_samples, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    configs = [result.config[VALUES] for result in results]
    assert len(configs) == found.num_trials == 4
    key = "policy.actor_lr"
    assert all(sum(other[key] == each[key] for other in configs) == 2 for each in configs)
    if search == "random":
        planned = sweep.search_space().sample(2, seed=0)
        assert sorted(map(str, configs)) == sorted(map(str, planned))
