"""How options and environments reach RLlib's configs, and what is refused at once."""

import gymnasium as gym
import pytest

from leray.algorithms.appo.algorithm import APPOConfig
from leray.algorithms.ppo.algorithm import PPOConfig
from leray.algorithms.trainable import DataSource
from leray.envs.config import GymEnvConfig
from leray.errors import ConfigError

PLACE = {"replay_folder": "", "replay_slack": 0, "total_steps": 100}


def test_options_are_translated_into_rllibs():
    options = {"discount": 0.9, "gae_lambda": 0.8, "grad_clip_norm": 2.0, "hidden_dims": [8, 4]}
    config = PPOConfig().environment("CartPole-v1").training(**options, activation="relu")
    config.validate()
    assert (config.gamma, config.lambda_, config.grad_clip) == (0.9, 0.8, 2.0)
    assert config.model_config["fcnet_hiddens"] == [8, 4]
    assert config.model_config["fcnet_activation"] == "relu"
    assert config.model_config["vf_share_layers"] is False


@pytest.mark.parametrize("kind", [PPOConfig, APPOConfig])
def test_rllibs_own_names_mean_the_same(kind):
    config = kind().environment("CartPole-v1").training(gamma=0.5, grad_clip=3.0, lr=0.1)
    assert (config.discount, config.grad_clip_norm, config.lr) == (0.5, 3.0, 0.1)
    config.validate()
    assert (config.gamma, config.grad_clip) == (0.5, 3.0)


def test_an_unknown_option_is_refused():
    with pytest.raises(ConfigError, match=r"unknown options .'utd_ratio'.*gae_lambda"):
        PPOConfig().training(utd_ratio=2.0)


@pytest.mark.parametrize("coefficient", [0.0, 0.2])
def test_the_kl_penalty_is_on_with_a_coefficient(coefficient):
    config = PPOConfig().environment("CartPole-v1").training(kl_coeff=coefficient)
    config.validate()
    assert config.use_kl_loss == (coefficient > 0)


def test_a_minibatch_larger_than_the_batch_is_refused():
    config = PPOConfig().environment("CartPole-v1")
    config.prepare({"minibatch_size": 128}, 64)
    with pytest.raises(ConfigError, match=r"--policy\.minibatch_size=128: give at most .*64"):
        config.validate()


@pytest.mark.parametrize("kind", [PPOConfig, APPOConfig])
def test_learning_without_fresh_experience_is_refused(kind):
    with pytest.raises(ConfigError, match="learns online only"):
        kind().place(online=False, dataset=DataSource(root="/data"), **PLACE)
    with pytest.raises(ConfigError, match="cannot use /data; drop --dataset"):
        kind().place(online=True, dataset=DataSource(root="/data"), **PLACE)
    kind().place(online=True, dataset=None, **PLACE)


@pytest.mark.parametrize("kind", [PPOConfig, APPOConfig])
def test_more_than_one_learner_is_refused(kind):
    config = kind().environment("CartPole-v1").learners(num_learners=2)
    with pytest.raises(
        ConfigError, match=r"--learners\.num_learners=2: a?ppo learns in one process"
    ):
        config.validate()


def test_the_environment_comes_from_lerays_options():
    config = PPOConfig().environment("ignored")
    config.env_options = GymEnvConfig(task="CartPole-v1", max_episode_steps=7)
    config.validate()
    assert config.env_config["env"].max_episode_steps == 7


def test_an_environment_class_is_refused():
    with pytest.raises(ConfigError, match="give a Gymnasium id"):
        PPOConfig().environment(gym.Env).validate()


def test_appo_looks_at_trajectories_of_the_longer_of_two_lengths():
    config = APPOConfig().environment("CartPole-v1").training(trajectory_length=20)
    config.pace("sync", 1)
    config.validate()
    assert config.rollout_fragment_length == 20
    config.pace("sync", 64)
    config.validate()
    assert config.rollout_fragment_length == 64


def test_appo_does_not_wait_for_runners():
    config = APPOConfig().env_runners(num_env_runners=2)
    config.pace("async", 16)
    with pytest.raises(ConfigError, match="appo never waits"):
        config.pace("sync", 16)
