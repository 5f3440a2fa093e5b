"""PPO and APPO under the trainer's contract: counters, figures, checkpoints, exact resume."""

import json
import math

import gymnasium as gym
import pytest
import torch

from leray.algorithms.appo.algorithm import APPOConfig
from leray.algorithms.onpolicy import algorithm as onpolicy
from leray.algorithms.onpolicy import state
from leray.algorithms.ppo.algorithm import PPOConfig
from leray.algorithms.registry import load_policy
from leray.errors import CheckpointError, EnvError, FeatureMismatchError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

KINDS = {
    "ppo": (PPOConfig, {"num_epochs": 2, "minibatch_size": 50}, 200),
    "appo": (APPOConfig, {"trajectory_length": 25}, 100),
}
ITERATIONS = 3


def build(name, task="CartPole-v1", *, runners=0, pretrained=None, **options):
    kind, defaults, batch_size = KINDS[name]
    config = kind().environment(task)
    config.seed = 3
    chosen = {"hidden_dims": [16], "kl_coeff": 0.1, **defaults, **options}
    config.prepare({**chosen, "pretrained_path": pretrained}, batch_size)
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=2)
    return config.build_algo()


@pytest.fixture
def make():
    built = []

    def make_one(*args, **kwargs):
        built.append(build(*args, **kwargs))
        return built[-1]

    yield make_one
    for algorithm in built:
        algorithm.stop()


def train(algorithm, steps):
    goal = algorithm.progress + steps
    while algorithm.progress < goal:
        algorithm.train()


def snapshot(algorithm):
    algorithm.checkpoint_boundary()
    weights = algorithm._on_learners(state.module_tensors)
    moments, plain = algorithm._on_learners(state.learner_state)
    counters = (algorithm.env_steps, algorithm.num_updates, algorithm.num_episodes)
    return weights | moments, plain, counters, algorithm.episodes


def save(algorithm, folder):
    """Write a checkpoint as the trainer does; return the counters as they are read back."""
    algorithm.checkpoint_boundary()
    algorithm.save_pretrained(folder / "pretrained_model")
    (folder / "training_state").mkdir()
    counters = algorithm.save_training_state(folder / "training_state")
    return json.loads(json.dumps(counters))


def assert_equal(left, right):
    assert left[0].keys() == right[0].keys()
    assert all(torch.equal(left[0][key], right[0][key]) for key in left[0])
    assert json.dumps(left[1:]) == json.dumps(right[1:])


def runner_weights(algorithm):
    group = algorithm.env_runner_group
    local = not group.num_remote_env_runners()
    return group.foreach_env_runner(lambda r: r.module.state_dict(), local_env_runner=local)


@pytest.mark.parametrize("runners", [0, 2])
@pytest.mark.parametrize("name", list(KINDS))
def test_training_counts_and_reports(make, name, runners):
    algorithm = make(name, runners=runners)
    assert (algorithm.env_steps, algorithm.num_updates) == (0, 0)
    train(algorithm, 400)
    algorithm.checkpoint_boundary()
    assert algorithm.progress == algorithm.env_steps >= 400
    assert algorithm.num_updates > 0
    report = algorithm.report()
    assert {"train/episode_return", "train/entropy", "loss/policy", "loss/value"} <= report.keys()
    assert "train/success_rate" not in report
    assert report["train/episode_return"] == report["train/episode_length"] > 5
    assert all(math.isfinite(value) for value in report.values())


def test_ppo_overshoots_by_less_than_a_batch(make):
    algorithm = make("ppo")
    algorithm.boundary = 300
    train(algorithm, 300)
    assert 400 <= algorithm.env_steps <= 402  # two environments


def test_success_is_reported_where_the_environment_does(make):
    algorithm = make("ppo", "PandaReach-v3")
    train(algorithm, 200)
    assert 0.0 <= algorithm.report()["train/success_rate"] <= 1.0


@pytest.mark.parametrize(
    ("name", "task", "runners"),
    [
        ("ppo", "CartPole-v1", 0),
        ("ppo", "Pendulum-v1", 2),
        ("appo", "CartPole-v1", 2),
        ("appo", "Pendulum-v1", 0),
    ],
)
def test_a_checkpoint_gives_back_everything(make, tmp_path, name, task, runners):
    first = make(name, task, runners=runners)
    train(first, 400)
    counters = save(first, tmp_path)
    saved = snapshot(first)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]
    second = make(name, task, runners=runners, pretrained=str(tmp_path / "pretrained_model"))
    second.load_training_state(tmp_path / "training_state", counters)
    assert_equal(snapshot(second), saved)
    for weights in runner_weights(second):
        assert all(torch.equal(value, saved[0][key]) for key, value in weights.items())
    train(second, 200)
    assert second.env_steps >= saved[2][0] + 200
    assert second.num_updates > saved[2][1]


@pytest.mark.parametrize("runners", [0, 2])
def test_ppo_goes_on_as_if_it_had_not_been_interrupted(make, tmp_path, runners):
    straight = make("ppo", "Pendulum-v1", runners=runners)
    train(straight, 400)
    counters = save(straight, tmp_path)
    train(straight, 400)
    expected = snapshot(straight)
    resumed = make(
        "ppo", "Pendulum-v1", runners=runners, pretrained=str(tmp_path / "pretrained_model")
    )
    resumed.load_training_state(tmp_path / "training_state", counters)
    train(resumed, 400)
    assert_equal(snapshot(resumed), expected)


def test_the_age_of_appos_target_network_is_kept(make, tmp_path):
    first = make("appo")
    train(first, 400)
    counters = save(first, tmp_path)
    assert counters["target_age"] > 0
    second = make("appo", pretrained=str(tmp_path / "pretrained_model"))
    second.load_training_state(tmp_path / "training_state", counters)
    assert second._on_learners(lambda learner: learner.target_age) == counters["target_age"]


def test_the_saved_policy_is_the_one_that_runners_act_with(make, tmp_path):
    algorithm = make("ppo", "Pendulum-v1")
    train(algorithm, 200)
    algorithm.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    (weights,) = runner_weights(algorithm)
    assert all(torch.equal(policy.tensors[key], value) for key, value in weights.items())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(make):
    results = []
    for seed in (1, 1, 2):
        config = PPOConfig().environment("Pendulum-v1")
        config.seed = seed
        config.prepare({"num_epochs": 1, "hidden_dims": [8]}, 200)
        algorithm = config.build_algo()
        try:
            train(algorithm, 400)
            results.append(algorithm._on_learners(state.module_tensors)["pi.net.mlp.0.weight"])
        finally:
            algorithm.stop()
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_runners_begin_from_seeds_of_their_own(make):
    algorithm = make("ppo", runners=2)
    algorithm.checkpoint_boundary()
    seeds = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner._seed, local_env_runner=False
    )
    assert abs(seeds[0] - seeds[1]) > 1000


def test_weights_of_another_network_are_refused(make, tmp_path):
    first = make("ppo")
    first.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="names or shapes differ for encoder"):
        build("ppo", pretrained=str(tmp_path), hidden_dims=[8])


def test_weights_for_another_environment_are_refused(make, tmp_path):
    make("ppo").save_pretrained(tmp_path)
    with pytest.raises(FeatureMismatchError, match="environment Pendulum-v1"):
        build("ppo", "Pendulum-v1", pretrained=str(tmp_path))


def test_a_damaged_state_is_refused(make, tmp_path):
    algorithm = make("ppo")
    train(algorithm, 200)
    counters = save(algorithm, tmp_path)
    folder = tmp_path / "training_state"
    with pytest.raises(CheckpointError, match=r"does not fit this run .KeyError: 'episodes'"):
        algorithm.load_training_state(folder, {k: counters[k] for k in counters if k != "episodes"})
    (folder / state.TENSORS_FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="incomplete or damaged"):
        algorithm.load_training_state(folder, counters)


def test_an_unknown_environment_is_one_line():
    with pytest.raises(EnvError, match="CartPole-v9"):
        build("ppo", "CartPole-v9")


class Broken(gym.Env):
    """Fails at its first step."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        raise ValueError("no such motor")


gym.register("leray-test/Broken-v0", entry_point=Broken)


def test_a_crash_in_this_process_is_one_line(make):
    algorithm = make("ppo", "leray-test/Broken-v0")
    with pytest.raises(EnvError, match="no such motor"):
        algorithm.train()


def test_the_run_ends_when_all_runners_are_lost(make, monkeypatch):
    algorithm = make("ppo", runners=1)
    group = algorithm.env_runner_group
    monkeypatch.setattr(group, "num_healthy_remote_workers", lambda: 0)
    monkeypatch.setattr(onpolicy, "MAX_STARVED_S", 0.0)
    algorithm._watch_runners(advanced=True)
    algorithm._watch_runners(advanced=False)  # the clock begins
    with pytest.raises(EnvError, match="all 1 env runners have been lost"):
        algorithm._watch_runners(advanced=False)


@pytest.mark.slow
def test_ppo_learns_to_balance_the_pole():
    config = PPOConfig().environment("CartPole-v1").training(lr=1e-3)
    config.seed = 0
    algorithm = config.build_algo()
    try:
        while algorithm.env_steps < 60_000 and not _return(algorithm) >= 300:
            algorithm.train()
        assert _return(algorithm) >= 300
    finally:
        algorithm.stop()


def _return(algorithm):
    return algorithm.report().get("train/episode_return", 0.0)
