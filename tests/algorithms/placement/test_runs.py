"""Groups of runners on one node: each with its own width and environment, feeding one learner."""

import pytest

from leray.algorithms.placement.groups import RunnerGroup
from leray.algorithms.ppo.algorithm import PPOConfig
from leray.algorithms.sac.algorithm import SACConfig
from leray.algorithms.sac.config import MLPConfig
from leray.errors import FeatureMismatchError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

GROUPS = [
    RunnerGroup(name="earth", num_envs_per_env_runner=3),
    RunnerGroup(name="moon", num_envs_per_env_runner=1, env_kwargs={"g": 1.6}),
]


def sac() -> SACConfig:
    network = MLPConfig(hidden_dims=[16, 16])
    config = SACConfig().debugging(seed=3)
    config.training(
        actor_network_kwargs=network,
        critic_network_kwargs=network,
        online_buffer_capacity=5_000,
        online_step_before_learning=40,
        train_batch_size_per_learner=16,
    )
    config.min_sample_timesteps_per_iteration = 120
    return config


@pytest.mark.parametrize("clock", ["sync", "async"])
def test_each_group_has_its_own_environments(clock):
    config = sac().environment("Pendulum-v1").training(clock=clock)
    algorithm = config.group_env_runners(GROUPS).build_algo()
    try:
        found = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: [env.unwrapped.g for env in runner.env.envs], local_env_runner=False
        )
        assert found == [[10.0] * 3, [1.6]]
        algorithm.train()
        owners = algorithm._on_learner(
            lambda learner: learner.online.columns["runner"][: learner.online.head].tolist()
        )
        assert {1, 2} <= set(owners)
        assert algorithm.env_steps >= 120
        assert algorithm.runner_figures() == {"train/runners": 2, "train/runner_restarts": 0}
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_ppo_collects_one_batch_with_all_groups():
    config = PPOConfig().environment("Pendulum-v1").debugging(seed=3)
    config.prepare({"hidden_dims": [16, 16], "minibatch_size": 32, "num_epochs": 1}, 120)
    algorithm = config.group_env_runners(GROUPS).build_algo()
    try:
        widths = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: (runner.num_envs, runner.config.env_config["env"].kwargs),
            local_env_runner=False,
        )
        algorithm.train()
        assert 120 <= algorithm.env_steps < 130
        assert algorithm.report()["train/runners"] == 2
    finally:
        algorithm.stop()
    assert widths == [(3, {}), (1, {"g": 1.6})]


def test_a_group_cannot_have_other_actions():
    odd = RunnerGroup(name="odd", env_kwargs={"control_type": "joints"})
    config = sac().environment("PandaReach-v3")
    config.group_env_runners([RunnerGroup(name="plain"), odd])
    with pytest.raises(FeatureMismatchError, match=r"^runner group odd has .* runner group plain"):
        config.build_algo()
