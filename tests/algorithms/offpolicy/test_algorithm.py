"""SAC through RLlib: build, train, checkpoint, tune; and the two clocks."""

import contextlib

import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.bc.policy import BCPolicy
from leray.algorithms.offpolicy import algorithm as offpolicy
from leray.algorithms.sac.algorithm import SAC, SACConfig
from leray.algorithms.sac.config import MLPConfig
from leray.data.features import Feature, Features
from leray.data.names import ENVIRONMENT_STATE
from leray.errors import ConfigError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

WARM_UP = 40


def _config(**options) -> SACConfig:
    """Return a config that trains on Pendulum within a second."""
    network = MLPConfig(hidden_dims=[16, 16])
    config = SACConfig().environment("Pendulum-v1").debugging(seed=3)
    config.training(
        actor_network_kwargs=network,
        critic_network_kwargs=network,
        online_buffer_capacity=5_000,
        online_step_before_learning=WARM_UP,
        train_batch_size_per_learner=16,
        **options,
    )
    config.min_sample_timesteps_per_iteration = 120
    return config


@pytest.fixture
def build():
    """Build algorithms that are stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(config) -> SAC:
            algorithm = config.build_algo()
            stack.callback(algorithm.stop)
            return algorithm

        yield make


def _blocks(algorithm) -> dict[str, torch.Tensor]:
    return algorithm._on_learner(
        lambda learner: {name: block.clone() for name, block in learner.policy.blocks().items()}
    )


def _flat(algorithm) -> torch.Tensor:
    return torch.cat([block.flatten() for block in _blocks(algorithm).values()])


def test_the_plain_rllib_way_works(build):
    algorithm = build(_config())
    before = _flat(algorithm)
    result = algorithm.train()
    assert not torch.equal(_flat(algorithm), before)
    assert algorithm.env_steps == 120
    assert algorithm.num_updates == 120 - WARM_UP
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 120
    report = algorithm.report()
    assert report["buffer/online"] == 120
    assert report["buffer/offline"] == 0
    assert all(torch.tensor(value).isfinite() for value in report.values())
    algorithm.train()  # an episode of Pendulum has 200 steps
    assert algorithm.num_episodes == 1
    assert algorithm.report()["train/episode_length"] == 200
    assert algorithm.report()["train/episode_return"] < 0


def test_runners_act_with_the_newest_weights(build):
    algorithm = build(_config())
    algorithm.train()
    acting = algorithm.env_runner_group.local_env_runner.module.policy.acting_block()
    assert torch.equal(acting, _blocks(algorithm)["acting"])


@pytest.fixture
def cloned(tmp_path):
    """The folder of an actor for Pendulum that behaviour cloning would save."""
    features = Features(
        {
            "observation.state": Feature("float32", (3,)),
            "action": Feature("float32", (1,), low=(-2.0,), high=(2.0,)),
        }
    )
    network = MLPConfig(hidden_dims=[16, 16])
    config = BCPolicyConfig(actor_network_kwargs=network, exploration_std=1e-3)
    torch.manual_seed(0)
    processor = BCPolicy.make_processor(features, config, {}, use_imagenet_stats=True)
    BCPolicy(config, processor).save_pretrained(tmp_path / "bc")
    return tmp_path / "bc"


@pytest.mark.parametrize("random", [None, True])
def test_a_pretrained_actor_acts_before_learning(build, cloned, random):
    config = _config(pretrained_path=str(cloned), random_before_learning=random)
    config.min_sample_timesteps_per_iteration = WARM_UP
    algorithm = build(config)
    algorithm.train()
    assert algorithm.num_updates == 0
    columns = algorithm._on_learner(lambda learner: learner.online.columns)
    seen = {"observation.state": columns["observation.state"][:WARM_UP]}
    expected = BCPolicy.from_pretrained(cloned).act(seen)[:, 0]
    distance = np.abs(columns["action"][:WARM_UP] - expected).max()
    assert (distance < 0.02) == (random is None)


def test_critics_warm_up_in_one_go_while_the_actor_rests(build, cloned):
    config = _config(pretrained_path=str(cloned), critic_warmup_updates=200, utd_ratio=0.5)
    config.min_sample_timesteps_per_iteration = WARM_UP + 1
    algorithm = build(config)
    start = _blocks(algorithm)
    algorithm.train()
    assert (algorithm.env_steps, algorithm.num_updates) == (WARM_UP + 1, 200)
    warm = _blocks(algorithm)
    assert torch.equal(start["acting"], warm["acting"])
    assert torch.equal(start["log_alpha"], warm["log_alpha"])
    assert not torch.equal(start["critic"], warm["critic"])
    algorithm.train()
    assert algorithm.num_updates == 200 + (WARM_UP + 2) // 2
    assert not torch.equal(start["acting"], _blocks(algorithm)["acting"])


def test_a_stop_while_critics_warm_up_changes_nothing(build, cloned, monkeypatch):
    def config():
        config = _config(pretrained_path=str(cloned), critic_warmup_updates=200)
        config.min_sample_timesteps_per_iteration = 0  # RLlib then looks around at every stop
        return config

    monkeypatch.setattr(offpolicy, "UPDATES_PER_SYNC_STEP", 64)
    whole = build(config())
    whole.boundary = 60
    while whole.env_steps < 60:
        whole.train()
    stopped = build(config())
    stopped.boundary = 60
    train = stopped._train

    def stop_with_the_first(num_updates):
        train(num_updates)
        stopped.stop_requested = num_updates == 64 == stopped.num_updates

    stopped._train = stop_with_the_first
    stopped.train()
    assert (stopped.env_steps, stopped.num_updates) == (WARM_UP + 1, 64)
    stopped.stop_requested = False
    while stopped.env_steps < 60:
        stopped.train()
    assert stopped.num_updates == whole.num_updates == 200 + 60 - WARM_UP
    assert torch.equal(_flat(stopped), _flat(whole))


def test_a_checkpoint_brings_everything_back_and_training_goes_on(build, tmp_path):
    algorithm = build(_config(num_critics=3))
    for _ in range(2):
        algorithm.train()
    algorithm.save_to_path(tmp_path)
    again = Algorithm.from_checkpoint(tmp_path)
    try:
        assert isinstance(again, SAC)
        for name, block in _blocks(algorithm).items():
            assert torch.equal(block, _blocks(again)[name]), name
        for state in ("learner", "sampler"):
            expected = algorithm._on_learner(lambda one, s=state: getattr(one, s).state_dict())
            found = again._on_learner(lambda one, s=state: getattr(one, s).state_dict())
            assert str(expected) == str(found)
        expected = algorithm._on_learner(lambda learner: learner.online.live_columns())
        found = again._on_learner(lambda learner: learner.online.live_columns())
        assert all((expected[key] == found[key]).all() for key in expected)
        assert (again.env_steps, again.num_updates) == (240, 200)
        assert again.num_episodes == 1
        assert str(again.episodes) == str(algorithm.episodes)  # success is NaN: no equality
        acting = again.env_runner_group.local_env_runner.module.policy.acting_block()
        assert torch.equal(acting, _blocks(algorithm)["acting"])
        before = _flat(again)
        again.train()
        assert (again.env_steps, again.num_updates) == (360, 320)
        assert not torch.equal(_flat(again), before)
    finally:
        again.stop()


def _train(build, config, iterations=2) -> torch.Tensor:
    algorithm = build(config)
    for _ in range(iterations):
        algorithm.train()
    return _flat(algorithm)


def test_the_same_seed_gives_the_same_weights(build):
    first, again, other = (_train(build, _config().debugging(seed=seed), 1) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_same_seed_gives_the_same_weights_with_a_remote_runner(build):
    def config():
        return _config(clock="sync").env_runners(num_env_runners=1, num_envs_per_env_runner=2)

    assert torch.equal(_train(build, config(), 1), _train(build, config(), 1))


@pytest.mark.parametrize("ratio", [0.25, 2.0])
def test_asynchronous_runs_hold_the_replay_ratio(build, ratio):
    config = _config(utd_ratio=ratio).env_runners(
        num_env_runners=1, rollout_fragment_length=4, create_local_env_runner=True
    )
    assert config.resolved_clock == "async"
    algorithm = build(config)
    while algorithm.env_steps < 400:
        algorithm.train()
    # ahead by what may be in flight, behind by less than the updates of one look at the runners
    exact = (algorithm.env_steps - WARM_UP) * ratio
    ahead_steps = 2 * 2 * 4 + 1 / ratio
    assert algorithm.num_updates <= exact
    assert algorithm.num_updates >= exact - ahead_steps * ratio - 1
    assert algorithm.report()["train/weight_staleness_updates"] >= 0
    assert algorithm.report()["buffer/online"] == algorithm.env_steps


def test_a_slow_ratio_with_single_steps_does_not_stall(build):
    config = _config(utd_ratio=0.05).env_runners(num_env_runners=1, rollout_fragment_length=1)
    config.min_sample_timesteps_per_iteration = 20
    algorithm = build(config)
    while algorithm.env_steps < WARM_UP + 60:
        algorithm.training_step()
    assert algorithm.num_updates >= 1


def test_a_learner_in_its_own_process_learns_the_same(build):
    local = _train(build, _config(), 1)
    remote = _train(build, _config().learners(num_learners=1), 1)
    assert torch.equal(local, remote)


@pytest.mark.parametrize(("her_ratio", "told"), [(0.8, True), (0.0, False)])
def test_goal_tasks_are_learnt_with_hindsight(build, her_ratio, told):
    algorithm = build(_config(her_ratio=her_ratio).environment("PandaReach-v3"))
    algorithm.train()

    def share_of_stored_goals(learner) -> float:
        stored = np.unique(learner.online.columns[ENVIRONMENT_STATE][:, 3:6], axis=0)
        goals = np.concatenate(
            [learner.sampler.sample()[ENVIRONMENT_STATE][:, 3:6].numpy() for _ in range(20)]
        )
        return float((goals[:, None] == stored).all(-1).any(-1).mean())

    share = algorithm._on_learner(share_of_stored_goals)
    assert share == pytest.approx(0.2 if told else 1.0, abs=0.05)


def test_a_block_that_was_lost_is_not_bridged(build):
    algorithm = build(_config())
    algorithm.train()
    runner = algorithm.env_runner_group.local_env_runner
    rows = algorithm._on_learner(lambda learner: learner.online.head)
    runner.sample(num_timesteps=5)  # lost on its way
    algorithm._receive(runner.sample(num_timesteps=5))
    algorithm._receive(runner.sample(num_timesteps=5))
    # 11 observations: the lost block's successor begins anew, the next one continues it
    assert algorithm._on_learner(lambda learner: learner.online.head) == rows + 11


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"actor_lrr": 1e-3}, r"unknown options \['actor_lrr'\]: allowed are .*actor_lr"),
        ({"discount": 2.0}, "--policy.discount=2.0"),
        ({"clock": "fast"}, "clock=fast: allowed are sync, async, None"),
        ({"clock": "async"}, "clock=async needs num_env_runners >= 1"),
        ({"online": False}, "online=False needs dataset_root"),
    ],
)
def test_wrong_options_are_refused(option, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _config(**option).validate()
    assert "\n" not in str(caught.value)


def test_more_than_one_learner_is_refused():
    with pytest.raises(ConfigError, match="num_learners=2: off-policy algorithms learn in one"):
        _config().learners(num_learners=2).validate()


def test_a_bare_tuner_sweeps_an_option(tmp_path):
    config = _config()
    config.actor_lr = tune.grid_search([1e-3, 1e-2])
    results = tune.Tuner(
        SAC,
        param_space=config,
        run_config=tune.RunConfig(
            stop={"training_iteration": 2},
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    assert sorted(result.config["actor_lr"] for result in results) == [1e-3, 1e-2]
    best = results.get_best_result("env_runners/num_env_steps_sampled_lifetime", "max")
    with best.checkpoint.as_directory() as folder:
        again = Algorithm.from_checkpoint(folder)
    assert again.env_steps == 240
    assert again.config.actor_lr == best.config["actor_lr"]
    again.stop()
