"""Runner groups as they stand in a config."""

import re

import pytest

from leray.algorithms.placement.groups import RunnerGroup, read_groups
from leray.errors import ConfigError

FLAT = RunnerGroup(name="all", num_envs_per_env_runner=8, num_cpus=2.0)


def test_a_group_takes_from_the_flat_options_what_it_does_not_say():
    sims, arm = read_groups(
        [
            {"name": "sims", "num_env_runners": 4, "labels": {"role": "sim"}},
            {"name": "arm", "num_envs_per_env_runner": 1, "resources": {"robot": 1}},
        ],
        FLAT,
    )
    assert (sims.num_env_runners, sims.num_envs_per_env_runner, sims.num_cpus) == (4, 8, 2.0)
    assert (arm.num_env_runners, arm.num_envs_per_env_runner) == (1, 1)
    assert sims.needs == {"CPU": 2.0}
    assert arm.needs == {"CPU": 2.0, "robot": 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"num_env_runners": 2}, "give the group a name"),
        ({"name": ""}, "give a name"),
        ({"name": 3}, "give a name"),
        ({"name": "a", "num_runners": 2}, "num_runners: unknown; did you mean num_env_runners?"),
        ({"name": "a", "num_env_runners": 0}, "a: num_env_runners=0: give a whole number >= 1"),
        ({"name": "a", "num_env_runners": 1.5}, "a: num_env_runners=1.5: give a whole number"),
        ({"name": "a", "num_envs_per_env_runner": True}, "num_envs_per_env_runner=True"),
        ({"name": "a", "num_cpus": -1}, "a: num_cpus=-1: give a number >= 0"),
        ({"name": "a", "num_gpus": "one"}, "a: num_gpus=one"),
        ({"name": "a", "resources": {"robot": 0}}, "a: resources: robot=0: give a number > 0"),
        ({"name": "a", "resources": {"GPU": 1}}, "a: resources: GPU has an option of its own"),
        ({"name": "a", "resources": "robot"}, "a: resources=robot: give a mapping"),
        ({"name": "a", "labels": {"role": 1}}, "a: labels: role=1: give text"),
        ({"name": "a", "env_kwargs": ["g"]}, "a: env_kwargs=['g']: give a mapping"),
    ],
)
def test_what_cannot_be_is_refused_with_the_group_named(entry, message):
    with pytest.raises(ConfigError, match=rf"^--runners\.groups: .*{re.escape(message)}"):
        read_groups([entry], FLAT)


def test_two_groups_cannot_have_one_name():
    with pytest.raises(ConfigError, match="two groups are called sims"):
        read_groups([{"name": "sims"}, {"name": "sims"}], FLAT)
