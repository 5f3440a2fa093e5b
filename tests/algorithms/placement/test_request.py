"""What Tune reserves for a run whose runners and learners are placed."""

import pytest

from leray.algorithms.placement.groups import RunnerGroup
from leray.algorithms.ppo.algorithm import PPO, PPOConfig
from leray.algorithms.sac.algorithm import SAC, SACConfig
from leray.errors import ConfigError

SIMS = RunnerGroup(name="sims", num_env_runners=2, num_cpus=2, labels={"role": "sim"})
ARM = RunnerGroup(name="arm", resources={"robot": 1}, num_envs_per_env_runner=3)


@pytest.mark.parametrize(("algorithm", "config"), [(SAC, SACConfig), (PPO, PPOConfig)])
def test_all_groups_and_learners_are_in_the_placement_group(algorithm, config):
    options = config().environment("Pendulum-v1").group_env_runners([SIMS, ARM])
    options.learners(num_learners=1, num_cpus_per_learner=1)
    options.label_learners({"role": "learner"})
    request = algorithm.default_resource_request(options)
    assert request.bundles == [
        {"CPU": 1.0},
        {"CPU": 2.0},
        {"CPU": 2.0},
        {"CPU": 1.0, "robot": 1.0},
        {"CPU": 1.0},
    ]
    assert request._kwargs["bundle_label_selector"] == [
        {},
        {"role": "sim"},
        {"role": "sim"},
        {},
        {"role": "learner"},
    ]


def test_runners_of_evaluation_lie_between_groups_and_learners():
    options = SACConfig().environment("Pendulum-v1").group_env_runners([SIMS])
    options.evaluation(evaluation_interval=1, evaluation_num_env_runners=1)
    options.learners(num_learners=1)
    request = SAC.default_resource_request(options.label_learners({"role": "learner"}))
    labels = request._kwargs["bundle_label_selector"]
    assert labels == [{}, {"role": "sim"}, {"role": "sim"}, {}, {"role": "learner"}]
    assert [bundle["CPU"] for bundle in request.bundles] == [1, 2, 2, 1, 1]


def test_without_groups_the_request_is_that_of_rllib():
    options = SACConfig().environment("Pendulum-v1").env_runners(num_env_runners=2)
    request = SAC.default_resource_request(options)
    assert request.bundles == [{"CPU": 1.0}] * 3
    assert "bundle_label_selector" not in request._kwargs


def test_the_number_of_runners_is_that_of_the_groups():
    options = SACConfig().environment("Pendulum-v1").group_env_runners([SIMS, ARM])
    assert options.num_env_runners == 3
    assert options.resolved_clock == "async"
    with pytest.raises(ConfigError, match="num_env_runners=5: the groups have 3"):
        options.env_runners(num_env_runners=5).validate()


def test_learners_in_the_training_process_have_no_labels_of_their_own():
    options = SACConfig().environment("Pendulum-v1").label_learners({"role": "learner"})
    with pytest.raises(ConfigError, match="needs num_learners >= 1"):
        options.validate()


def test_a_group_has_an_environment_of_its_own():
    own = RunnerGroup(name="own", env_kwargs={"g": 9.0}, num_envs_per_env_runner=4)
    sac = SACConfig().environment("Pendulum-v1").for_group(own)
    assert sac.env_config == {"g": 9.0}
    assert sac.num_envs_per_env_runner == 4
    ppo = PPOConfig().environment("Pendulum-v1")
    ppo.validate()
    assert ppo.for_group(own).env_config["env"].kwargs == {"g": 9.0}
    assert ppo.env_config["env"].kwargs == {}
