"""SAC learns, in plain torch and numpy: no Ray, no run around it."""

import numpy as np
import torch

from leray.algorithms.processor import make_processor
from leray.algorithms.replay.hindsight import Hindsight
from leray.algorithms.replay.ring import ReplayBuffer
from leray.algorithms.replay.sampler import ReplaySampler
from leray.algorithms.sac.config import MLPConfig, SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.data.features import Features
from leray.data.names import ACTION
from leray.envs.collector import Collector
from leray.envs.config import GymEnvConfig
from leray.envs.episodes import run_episodes
from leray.envs.goals import goal_task
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap, action_feature
from leray.envs.vector import VectorEnv

TASK = GymEnvConfig(task="PandaReach-v3")
BATCH, WARM_UP, STEPS = 128, 500, 1500


def train(her_ratio: float) -> SACPolicy:
    """Train on the sparse reaching task: one update per step after a random start."""
    env = make_env(TASK)
    mapping = ObservationMap(env, goal_relative=True)
    features = Features({**mapping.features, ACTION: action_feature(env)})
    network = MLPConfig(hidden_dims=[128, 128])
    config = SACPolicyConfig(
        actor_network_kwargs=network,
        critic_network_kwargs=network,
        discount=0.95,
        temperature_init=0.1,
    )
    policy = SACPolicy(config, make_processor(features, config.normalization_mapping, None))
    policy.initialize(torch.Generator().manual_seed(0))
    policy.seed(0)
    replay, rng = ReplayBuffer(features, 10_000), np.random.default_rng(0)
    sampler = ReplaySampler(
        replay,
        None,
        batch_size=BATCH,
        online_ratio=0.5,
        n_step=1,
        discount=config.discount,
        seed=1,
        device=torch.device("cpu"),
        hindsight=Hindsight(
            goal_task(env, mapping.goals), ratio=her_ratio, n_step=1, discount=config.discount
        ),
    )
    learner = policy.make_learner(batch_size=BATCH, seed=2)
    envs = VectorEnv(lambda: make_env(TASK), 1, goal_relative=True, seeds=[0])
    collector = Collector(envs, first_stream=0, runner=0)

    def random(observations):
        return rng.uniform(-1, 1, (1, 3)).astype(np.float32)

    replay.add(collector.collect(WARM_UP, random))
    for _ in range(STEPS):
        replay.add(collector.collect(1, lambda o: policy.act(o, deterministic=False)))
        learner.update(sampler.sample())
    return policy


def success_rate(policy: SACPolicy) -> float:
    results = run_episodes(
        TASK,
        lambda observations, slots: policy.act(observations, deterministic=True, envs=slots),
        indices=list(range(50)),
        seed=10_000,
        num_envs=10,
    )
    return float(np.mean([result.success for result in results]))


def test_hindsight_learns_to_reach_from_sparse_rewards():
    assert success_rate(train(her_ratio=0.8)) >= 0.9
    assert success_rate(train(her_ratio=0.0)) <= 0.5  # else the task would be too easy to tell
