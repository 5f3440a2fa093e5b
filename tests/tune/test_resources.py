"""What Tune reserves for a trial of a sweep."""

from leray.platform.config import TrainConfig
from leray.platform.parsing import parse
from leray.tune.config import ResourcesConfig
from leray.tune.resources import bundles, request

FLAGS = ["--policy.type=sac", "--env.type=gym", "--env.task=Pendulum-v1"]
GROUPS = (
    "--runners.groups=[{name: sims, num_env_runners: 2, num_cpus: 2, labels: {role: sim}}, "
    "{name: arm, resources: {robot: 1}}]"
)
LEARNER = (
    "--learners.num_learners=1",
    "--learners.labels={role: learner}",
    "--learners.custom_resources_per_learner={disk: 1}",
)


def read(*flags: str) -> TrainConfig:
    return parse(TrainConfig, [*FLAGS, *flags], command="train")


def test_groups_and_learners_are_reserved_where_they_belong():
    train = read(GROUPS, *LEARNER, "--eval.num_env_runners=1")
    reserved = request(ResourcesConfig(cpu=0.5), train)
    assert reserved.bundles == [
        {"CPU": 0.5},
        {"CPU": 2.0},
        {"CPU": 2.0},
        {"CPU": 1.0, "robot": 1.0},
        {"CPU": 1.0},
        {"CPU": 1.0, "disk": 1.0},
    ]
    sim, learner = {"role": "sim"}, {"role": "learner"}
    assert reserved._kwargs["bundle_label_selector"] == [{}, sim, sim, {}, {}, learner]


def test_labels_stay_with_their_bundles_where_the_trial_itself_needs_nothing():
    reserved = request(ResourcesConfig(cpu=0), read(GROUPS))
    assert reserved.head_bundle_is_empty
    assert len(reserved.bundles) == len(reserved._kwargs["bundle_label_selector"]) == 3
    assert reserved._kwargs["bundle_label_selector"][0] == {"role": "sim"}


def test_runners_that_are_alike_are_reserved_without_labels():
    train = read("--runners.num_env_runners=2", "--runners.num_cpus_per_env_runner=0.5")
    assert bundles(ResourcesConfig(), train)[1:] == [{"CPU": 0.5}] * 2
    assert "bundle_label_selector" not in request(ResourcesConfig(), train)._kwargs
