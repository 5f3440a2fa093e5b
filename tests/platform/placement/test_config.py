"""Placement as options: on the command line, in files, and from file to file."""

import pytest

from leray.algorithms.placement.groups import RunnerGroup
from leray.errors import ConfigError
from leray.platform.config import TrainConfig
from leray.platform.parsing import dump, load, parse
from leray.platform.sections import LearnersConfig, RunnersConfig

PENDULUM = ["--policy.type=sac", "--env.type=gym", "--env.task=Pendulum-v1"]
GROUPS = (
    "[{name: sims, num_env_runners: 4, num_envs_per_env_runner: 8, labels: {role: sim}}, "
    "{name: arm, num_cpus: 0.5, resources: {robot: 1}, env_kwargs: {g: 9.0}}]"
)


def read(*flags: str) -> TrainConfig:
    return parse(TrainConfig, [*PENDULUM, *flags], command="train")


def test_groups_are_given_on_the_command_line():
    runners = read(f"--runners.groups={GROUPS}", "--runners.num_envs_per_env_runner=2").runners
    sims, arm = runners.runner_groups()
    assert sims == RunnerGroup(
        name="sims", num_env_runners=4, num_envs_per_env_runner=8, labels={"role": "sim"}
    )
    assert arm == RunnerGroup(
        name="arm",
        num_envs_per_env_runner=2,
        num_cpus=0.5,
        resources={"robot": 1},
        env_kwargs={"g": 9.0},
    )
    assert (runners.total_env_runners, runners.total_envs, runners.total_cpus) == (5, 34, 5)
    assert runners.resolved_clock == "async"


def test_groups_survive_a_file(tmp_path):
    config = read(
        f"--runners.groups={GROUPS}",
        "--learners.num_learners=1",
        "--learners.labels={role: 'in(learner, gpu)'}",
        "--learners.custom_resources_per_learner={disk: 1}",
    )
    file = tmp_path / "train_config.yaml"
    file.write_text(dump(config))
    again = load(TrainConfig, file)
    assert again == config
    assert again.learners.labels == {"role": "in(learner, gpu)"}


def test_without_groups_the_flat_options_count():
    assert RunnersConfig().total_env_runners == 0
    flat = RunnersConfig(num_env_runners=2, num_envs_per_env_runner=3, num_cpus_per_env_runner=0.5)
    assert (flat.total_env_runners, flat.total_envs, flat.total_cpus) == (2, 6, 1)
    assert flat.runner_groups() == []
    assert RunnersConfig(num_envs_per_env_runner=3).total_envs == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runners.groups=[{name: a}]", "--runners.num_env_runners=2"], "contradicts"),
        (["--runners.groups=[{name: a, size: 3}]"], "size: unknown"),
        (["--runners.groups=sims"], "wanted a list"),
        (["--runners.num_cpus_per_env_runner=-1"], "num_cpus_per_env_runner=-1.0: give a number"),
        (["--runners.custom_resources_per_env_runner={robot: 0}"], "robot=0.0: give a number > 0"),
        (["--learners.labels={role: learner}"], "need --learners.num_learners >= 1"),
        (
            ["--learners.num_learners=1", "--learners.labels={role: a b}"],
            "--learners.labels: role='a b': give text",
        ),
    ],
)
def test_what_cannot_be_is_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        read(*flags)


def test_runners_of_groups_need_online_training():
    with pytest.raises(ConfigError, match="runners=1: nothing is collected"):
        read(
            "--runners.groups=[{name: a}]",
            "--use_online_training=false",
            "--dataset.root=somewhere",
        )


def test_resources_of_learners_are_checked():
    with pytest.raises(ConfigError, match="GPU has an option of its own"):
        LearnersConfig(num_learners=1, custom_resources_per_learner={"GPU": 1})
