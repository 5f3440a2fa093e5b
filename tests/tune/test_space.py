"""The language of search spaces: what it means, what is drawn, and what it refuses."""

import math
from typing import Any

import pytest

from leray.errors import ConfigError
from leray.tune.space import KINDS, Space, parse_space

LEAVES = {"lr", "batch_size", "seed", "policy.type", "policy.lr", "policy.size", "policy.depth"}
BASE = {"policy.type": "sac", "seed": 7}


def space(tree: dict[str, Any]) -> Space:
    return parse_space(tree, LEAVES, BASE.get)


def drawn(domain: dict[str, Any], count: int = 2000) -> list[Any]:
    only = space({"lr": domain})
    return [only.draw(0, number, {})["lr"] for number in range(count)]


def farthest_from_even(shares: list[float]) -> float:
    """Return the Kolmogorov-Smirnov distance between shares and the even distribution."""
    ordered = sorted(shares)
    return max(abs(share - index / len(shares)) for index, share in enumerate(ordered))


def test_dotted_and_nested_keys_mean_the_same():
    dotted = space({"policy.lr": {"uniform": [0, 1]}, "policy.size": {"choice": [1, 2]}})
    nested = space({"policy": {"lr": {"uniform": [0, 1]}, "size": {"choice": [1, 2]}}})
    assert dotted == nested


def test_the_later_of_two_domains_counts():
    both = space({"policy": {"lr": {"uniform": [0, 1]}}, "policy.lr": {"choice": [5]}})
    assert both == space({"policy.lr": {"choice": [5]}})


def test_a_plain_value_is_the_same_in_every_trial():
    trials = space({"lr": 0.5, "batch_size": {"choice": [1, 2]}}).sample(2, seed=0)
    assert sorted(trial["batch_size"] for trial in trials) == [1, 2]
    assert {trial["lr"] for trial in trials} == {0.5}


def test_loguniform_is_even_in_the_logarithm():
    values = drawn({"loguniform": [1e-4, 1e-1]})
    assert all(1e-4 <= value <= 1e-1 for value in values)
    shares = [math.log(value / 1e-4) / math.log(1e3) for value in values]
    assert farthest_from_even(shares) < 0.03
    assert farthest_from_even([(value - 1e-4) / 0.0999 for value in values]) > 0.3


def test_uniform_is_even():
    assert farthest_from_even([(value + 2) / 5 for value in drawn({"uniform": [-2, 3]})]) < 0.03


def test_whole_numbers_take_both_ends_as_often_as_the_rest():
    values = drawn({"int": [3, 6]}, 4000)
    assert all(type(value) is int for value in values)
    counts = {value: values.count(value) for value in sorted(set(values))}
    assert list(counts) == [3, 4, 5, 6]
    assert all(900 < count < 1100 for count in counts.values())


def test_whole_numbers_by_the_logarithm_take_both_ends():
    values = drawn({"logint": [1, 100]}, 4000)
    assert (min(values), max(values)) == (1, 100)
    below_ten = sum(value < 10 for value in values) / len(values)
    assert 0.5 < below_ten < 0.62  # of log(0.5) to log(100.5), log(9.5) is at 0.555


def test_a_domain_of_values_takes_each_as_often():
    values = drawn({"choice": ["a", [1, 2], None]}, 3000)
    assert all(900 < values.count(value) < 1100 for value in ("a", [1, 2], None))


def test_a_seed_gives_the_same_configurations_every_time():
    tree = {"lr": {"uniform": [0, 1]}, "batch_size": {"int": [1, 9]}}
    assert space(tree).sample(20, seed=3) == space(tree).sample(20, seed=3)
    assert space(tree).sample(20, seed=3) != space(tree).sample(20, seed=4)


def test_a_seed_gives_the_same_numbers_in_every_version():
    """What was drawn once can be drawn again, whatever else has changed since."""
    assert space({"lr": {"uniform": [0, 1]}}).sample(2, seed=0) == [
        {"lr": 0.3989582531343857},
        {"lr": 0.3672359278073576},
    ]


def test_another_key_changes_nothing_of_the_others():
    few = space({"lr": {"uniform": [0, 1]}}).sample(5, seed=0)
    more = space({"batch_size": {"int": [1, 9]}, "lr": {"uniform": [0, 1]}}).sample(5, seed=0)
    assert [trial["lr"] for trial in few] == [trial["lr"] for trial in more]


def test_more_trials_begin_with_the_same_ones():
    varied = space({"lr": {"uniform": [0, 1]}})
    assert varied.sample(8, seed=0)[:3] == varied.sample(3, seed=0)


def test_each_configuration_runs_at_every_point_of_the_grid():
    tree = {"lr": {"uniform": [0, 1]}, "seed": {"grid": [0, 1, 2]}, "policy.size": {"grid": [8, 9]}}
    trials = space(tree).sample(4, seed=0)
    assert len(trials) == 24
    assert len({trial["lr"] for trial in trials}) == 4
    first = trials[:6]
    assert {trial["lr"] for trial in first} == {trials[0]["lr"]}
    assert len({(trial["seed"], trial["policy.size"]) for trial in first}) == 6


def test_a_grid_alone_runs_each_point_once():
    trials = space({"seed": {"grid": [0, 1]}, "lr": {"grid": [1, 2, 3]}}).sample(10, seed=0)
    assert [(trial["seed"], trial["lr"]) for trial in trials] == [
        (seed, lr) for seed in (0, 1) for lr in (1, 2, 3)
    ]


def test_no_configuration_runs_twice_and_a_small_space_ends():
    trials = space({"lr": {"choice": [1, 2]}, "seed": {"grid": [0, 1]}}).sample(10, seed=0)
    assert sorted((trial["lr"], trial["seed"]) for trial in trials) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


CONDITIONAL = {
    "policy.type": {"choice": ["sac", "ppo", "bc"]},
    "policy.depth": {"int": [1, 4], "when": {"policy.type": ["sac", "ppo"]}},
    "policy.size": {"choice": [8, 16], "when": {"policy.depth": [1, 2]}},
    "lr": {"uniform": [0, 1], "when": {"policy": {"size": 8}, "policy.type": "sac"}},
}


def test_conditions_hold_in_every_configuration():
    trials = space(dict(reversed(CONDITIONAL.items()))).sample(400, seed=0)
    kinds = {frozenset(trial) for trial in trials}
    assert len(kinds) == 4
    for trial in trials:
        assert ("policy.depth" in trial) == (trial["policy.type"] != "bc")
        assert ("policy.size" in trial) == (trial.get("policy.depth") in (1, 2))
        sac = trial["policy.type"] == "sac"
        assert ("lr" in trial) == (sac and trial.get("policy.size") == 8)


def test_a_condition_on_a_grid_multiplies_only_where_it_holds():
    trials = space(
        {
            "policy.type": {"grid": ["sac", "ppo"]},
            "policy.lr": {"uniform": [0, 1], "when": {"policy.type": "sac"}},
        }
    ).sample(5, seed=0)
    assert [trial["policy.type"] for trial in trials].count("sac") == 5
    assert [trial["policy.type"] for trial in trials].count("ppo") == 1


def test_a_grid_can_depend_on_another():
    points = space(
        {
            "policy.type": {"grid": ["sac", "bc"]},
            "seed": {"grid": [0, 1], "when": {"policy.type": "bc"}},
        }
    ).points()
    assert points == [
        {"policy.type": "sac"},
        {"policy.type": "bc", "seed": 0},
        {"policy.type": "bc", "seed": 1},
    ]


def test_a_condition_on_the_base_config_is_decided_at_once():
    varied = space(
        {
            "lr": {"uniform": [0, 1], "when": {"policy.type": "sac"}},
            "policy.lr": {"uniform": [0, 1], "when": {"policy.type": "ppo"}},
            "policy.size": {"choice": [1], "when": {"policy.lr": 0.5}},
        }
    )
    assert [variable.key for variable in varied.variables] == ["lr"]
    assert varied["lr"].when == {}


def test_values_that_make_a_key_vary_are_found():
    varied = space(CONDITIONAL)
    pinned = varied.activating("lr")
    assert pinned == {"policy.type": "sac", "policy.depth": 1, "policy.size": 8}
    assert all("lr" in varied.draw(0, number, pinned) for number in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_values_are_in_their_domain(kind):
    content = [1, 64] if kind not in ("choice", "grid") else [1, "a", [2]]
    domain = space({"lr": {kind: content}})["lr"].domain
    for number in range(200):
        assert domain.at(number / 200) in domain
    for value in (0, 65, "b", None, True if kind in ("int", "uniform") else 0):
        assert value not in domain


WRONG = {
    "lr: unknown domain": (
        {"lr": {"unifor": [0, 1]}},
        "--space.lr: unifor: unknown domain; allowed are choice, grid, uniform, loguniform, int, "
        "logint; did you mean uniform?",
    ),
    "two domains": (
        {"lr": {"uniform": [0, 1], "choice": [1]}},
        '--space.lr={"choice": [1], "uniform": [0, 1]}: give exactly one domain of choice, grid, '
        "uniform, loguniform, int, logint, or a plain value",
    ),
    "empty choice": ({"lr": {"choice": []}}, "--space.lr: choice=[]: give a list of values"),
    "no list": ({"lr": {"grid": 3}}, "--space.lr: grid=3: give a list of values"),
    "twice": ({"seed": {"grid": [1, 2, 1]}}, "--space.seed: grid=[1, 2, 1]: has 1 twice"),
    "one end": ({"lr": {"uniform": [1]}}, "--space.lr: uniform=[1]: give two numbers, [low, high]"),
    "text": (
        {"lr": {"uniform": ["a", 1]}},
        '--space.lr: uniform=["a", 1]: give two numbers, [low, high]',
    ),
    "infinite": (
        {"lr": {"uniform": [0, math.inf]}},
        "--space.lr: uniform=[0, Infinity]: give two numbers, [low, high]",
    ),
    "fraction": (
        {"lr": {"int": [1, 2.5]}},
        "--space.lr: int=[1, 2.5]: give two whole numbers, [low, high]",
    ),
    "inverted": (
        {"lr": {"uniform": [2, 1]}},
        "--space.lr: uniform=[2, 1]: low must be below high; for one value give it plainly",
    ),
    "log of zero": (
        {"lr": {"loguniform": [0, 1]}},
        "--space.lr: loguniform=[0, 1]: both must be above 0 where the logarithm counts",
    ),
    "condition": (
        {"lr": {"choice": [1], "when": "sac"}},
        '--space.lr: when="sac": give keys and values, {policy.type: sac}',
    ),
    "condition without values": (
        {"lr": {"choice": [1], "when": {"seed": []}}},
        "--space.lr: when seed=[]: give a value or a list of some",
    ),
    "circle": (
        {
            "lr": {"choice": [1], "when": {"seed": 1}},
            "seed": {"choice": [1], "when": {"batch_size": 2}},
            "batch_size": {"choice": [2], "when": {"lr": 1}},
        },
        "--space: conditions go round in a circle, lr -> seed -> batch_size -> lr: "
        "drop one of them",
    ),
    "on itself": (
        {"lr": {"choice": [1], "when": {"lr": 1}}},
        "--space: conditions go round in a circle, lr -> lr: drop one of them",
    ),
    "never": (
        {"policy.type": {"choice": ["sac"]}, "lr": {"choice": [1], "when": {"policy.type": "saq"}}},
        "--space.lr: its condition policy.type=saq never holds; give values that policy.type can "
        "take",
    ),
    "never together": (
        {
            "seed": {"int": [0, 5]},
            "batch_size": {"choice": [1], "when": {"seed": 2}},
            "lr": {"choice": [1], "when": {"seed": 3, "batch_size": 1}},
        },
        "--space.lr: its condition seed=3, batch_size=1 never holds; give values that seed, "
        "batch_size can take",
    ),
}


@pytest.mark.parametrize(("tree", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(tree, line):
    with pytest.raises(ConfigError) as caught:
        space(tree)
    assert str(caught.value) == line
