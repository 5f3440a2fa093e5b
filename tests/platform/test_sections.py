"""The groups of options: what they refuse, and which episodes validation holds out."""

import itertools

import pytest

from leray.errors import ConfigError
from leray.platform.sections import DatasetConfig, LearnersConfig, ValidationConfig


@pytest.mark.parametrize(
    ("fraction", "total", "held_out"),
    [
        (0.0, 10, []),
        (0.1, 10, [5]),
        (0.2, 10, [2, 7]),
        (0.3, 10, [1, 5, 8]),
        (0.5, 4, [1, 3]),
        (0.01, 10, [5]),  # one at least
        (0.99, 3, [0, 2]),  # and one is left
    ],
)
def test_a_share_of_the_episodes_is_held_out_evenly(fraction, total, held_out):
    assert ValidationConfig(fraction=fraction).held_out(list(range(total))) == held_out


def test_a_share_is_taken_of_the_episodes_in_use():
    assert ValidationConfig(fraction=0.5).held_out([3, 5, 8, 13]) == [5, 13]


@pytest.mark.parametrize("total", [2, 7, 50, 313])
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_held_out_episodes_are_distinct_and_spread(total, fraction):
    held_out = ValidationConfig(fraction=fraction).held_out(list(range(total)))
    assert 1 <= len(held_out) < total
    assert len(set(held_out)) == len(held_out)
    gaps = [second - first for first, second in itertools.pairwise(held_out)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_named_episodes_are_held_out():
    assert ValidationConfig(episodes=[7, 2, 2]).held_out([0, 1, 2]) == [2, 7]
    assert not ValidationConfig(episodes=[]).is_asked_for


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        (ValidationConfig, {"fraction": 1.0}, "--validation.fraction=1.0: give a number from 0"),
        (ValidationConfig, {"fraction": -0.1}, "--validation.fraction=-0.1"),
        (ValidationConfig, {"fraction": 0.1, "episodes": [3]}, "contradict each other"),
        (LearnersConfig, {"num_learners": -1}, "--learners.num_learners=-1: give a whole"),
        (LearnersConfig, {"max_restarts": -1}, "--learners.max_restarts=-1"),
        (LearnersConfig, {"num_gpus_per_learner": -0.5}, "--learners.num_gpus_per_learner=-0.5"),
        (DatasetConfig, {"memory_limit_mb": 0}, "--dataset.memory_limit_mb=0"),
    ],
)
def test_what_cannot_be_is_refused(section, options, message):
    with pytest.raises(ConfigError, match=message):
        section(**options)
