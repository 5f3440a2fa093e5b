"""One measurement of one library, printed as a JSON line; `compare.py` runs them side by side."""

import argparse
import json
import os
import statistics
import time

SEED, OBSERVATION, ACTION, BATCH = 0, 17, 6, 256
CHEETAH = "HalfCheetah-v5"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["learner", "cheetah", "sampling", "replay"])
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--envs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    function = globals()[f"{arguments.what}_{arguments.library}"]
    value = function(arguments)
    print(json.dumps({**vars(arguments), "value": value}))


def repeated(step, seconds: float, chunk: int) -> float:
    """Return calls per second: the median over chunks, after a warm-up."""
    for _ in range(chunk):
        step()
    rates, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 3:
        began = time.perf_counter()
        for _ in range(chunk):
            step()
        rates.append(chunk / (time.perf_counter() - began))
    return statistics.median(rates)


def leray_parts(precision: str = "float32"):
    """Return a SAC learner of LeRay and a filled replay's sampler."""
    import numpy as np
    import torch

    from leray.algorithms.processor import make_processor
    from leray.algorithms.replay.ring import ReplayBuffer
    from leray.algorithms.replay.sampler import ReplaySampler
    from leray.algorithms.sac.config import SACPolicyConfig
    from leray.algorithms.sac.policy import SACPolicy
    from leray.data.features import Feature, Features
    from leray.envs.fragment import Fragment

    bounds = {"low": (-1.0,) * ACTION, "high": (1.0,) * ACTION}
    features = Features(
        {
            "observation.state": Feature("float32", (OBSERVATION,)),
            "action": Feature("float32", (ACTION,), **bounds),
        }
    )
    policy = SACPolicy(SACPolicyConfig(precision=precision), make_processor(features, {}, None))
    policy.initialize(torch.Generator().manual_seed(SEED))
    replay, rng = ReplayBuffer(features, 1_000_000), np.random.default_rng(SEED)
    steps = 1000
    for stream in range(100):
        state = rng.normal(size=(steps, 1, OBSERVATION)).astype(np.float32)
        ended = np.zeros((steps, 1), bool)
        columns = {
            "observation.state": state,
            "action": rng.uniform(-1, 1, (steps, 1, ACTION)).astype(np.float32),
            "next.reward": rng.normal(size=(steps, 1)).astype(np.float32),
            "next.done": ended,
            "next.truncated": ended.copy(),
        }
        columns["next.truncated"][-1] = True
        last = {"observation.state": state[-1]}
        replay.add(Fragment(columns=columns, tail=last, final=last, streams=np.array([stream])))
    sampler = ReplaySampler(
        replay,
        None,
        batch_size=BATCH,
        online_ratio=0.5,
        n_step=1,
        discount=0.99,
        seed=SEED,
        device=torch.device("cpu"),
    )
    return policy.make_learner(batch_size=BATCH, seed=SEED), sampler


def learner_leray(arguments, precision: str = "float32") -> float:
    """Updates per second of LeRay's SAC, sampling included."""
    import torch

    torch.set_num_threads(arguments.threads)
    learner, sampler = leray_parts(precision)
    return repeated(lambda: learner.update(sampler.sample()), arguments.seconds, 100)


def learner_leray_bfloat16(arguments) -> float:
    """Updates per second with bfloat16 matrix products."""
    return learner_leray(arguments, "bfloat16")


def replay_leray(arguments) -> float:
    """Microseconds per `sample()` of 256 transitions from 100,000."""
    _, sampler = leray_parts()
    return 1e6 / repeated(sampler.sample, arguments.seconds, 1000)


def fake_env():
    """Return an environment of the benchmark's sizes, which is never stepped for long."""
    import gymnasium as gym
    import numpy as np

    class Fake(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (ACTION,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.normal(size=OBSERVATION).astype(np.float32), {}

        def step(self, action):
            state = self.np_random.normal(size=OBSERVATION).astype(np.float32)
            return state, float(state[0]), False, False, {}

    return Fake()


def learner_sb3(arguments) -> float:
    """Gradient steps per second of Stable-Baselines3's SAC."""
    import torch

    torch.set_num_threads(arguments.threads)
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import configure

    model = SAC("MlpPolicy", fake_env(), seed=SEED, batch_size=BATCH, learning_starts=20_000)
    model.learn(20_000)
    model.set_logger(configure(None, []))
    return 10 * repeated(lambda: model.train(10, BATCH), arguments.seconds, 10)


def learner_sbx(arguments) -> float:
    """Gradient steps per second of SBX's SAC (JAX)."""
    from sbx import SAC
    from stable_baselines3.common.logger import configure

    model = SAC("MlpPolicy", fake_env(), seed=SEED, batch_size=BATCH, learning_starts=20_000)
    model.learn(20_000)
    model.set_logger(configure(None, []))
    return 10 * repeated(lambda: model.train(10, BATCH), arguments.seconds, 10)


def cheetah_sb3(arguments) -> float:
    """Environment steps per second of SB3 on HalfCheetah with one update per step."""
    import torch

    torch.set_num_threads(arguments.threads)
    import gymnasium as gym
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", gym.make(CHEETAH), seed=SEED, batch_size=BATCH, learning_starts=1000)
    model.learn(1200)
    rates, until = [], time.perf_counter() + arguments.seconds
    while time.perf_counter() < until or len(rates) < 3:
        began = time.perf_counter()
        model.learn(200, reset_num_timesteps=False)
        rates.append(200 / (time.perf_counter() - began))
    return statistics.median(rates)


def ray_started(arguments):
    """Start Ray quietly."""
    import logging

    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")  # for all libraries, as `leray train` has it
    import ray
    import torch

    ray.init(num_cpus=4, include_dashboard=False, logging_level=logging.ERROR)
    torch.set_num_threads(arguments.threads)


def algorithm_rate(algorithm, steps_of, seconds: float) -> float:
    """Return an RLlib algorithm's environment steps per second: the median of its iterations."""
    while steps_of(algorithm) < 1200:
        algorithm.train()
    rates, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 3:
        began, first = time.perf_counter(), steps_of(algorithm)
        algorithm.train()
        rates.append((steps_of(algorithm) - first) / (time.perf_counter() - began))
    algorithm.stop()
    return statistics.median(rates)


def cheetah_leray(arguments, runners: int = 0, precision: str = "float32") -> float:
    """Environment steps per second of LeRay's SAC on HalfCheetah with one update per step."""
    ray_started(arguments)
    from leray.algorithms.sac.algorithm import SACConfig

    config = SACConfig().environment(CHEETAH).env_runners(num_env_runners=runners)
    config.training(online_step_before_learning=1000, precision=precision)
    config.rollout_fragment_length = 1 if runners == 0 else 16
    config.min_sample_timesteps_per_iteration = 200
    config.seed = SEED
    return algorithm_rate(config.build_algo(), lambda a: a.env_steps, arguments.seconds)


def cheetah_leray_remote(arguments) -> float:
    """Measure with one remote env runner."""
    return cheetah_leray(arguments, runners=1)


def cheetah_leray_bfloat16(arguments) -> float:
    """Measure with bfloat16 matrix products."""
    return cheetah_leray(arguments, precision="bfloat16")


def cheetah_rllib(arguments, runners: int = 0) -> float:
    """Environment steps per second of stock RLlib SAC with the same networks."""
    ray_started(arguments)
    from ray.rllib.algorithms.sac import SACConfig

    config = (
        SACConfig()
        .environment(CHEETAH)
        .env_runners(num_env_runners=runners, rollout_fragment_length=1)
        .training(
            train_batch_size_per_learner=BATCH,
            num_steps_sampled_before_learning_starts=1000,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1_000_000},
            training_intensity=None,
        )
        .rl_module(model_config=rllib_model())
        .reporting(min_sample_timesteps_per_iteration=100)
        .debugging(seed=SEED, log_level="ERROR")
    )
    lifetime = {"steps": 0}

    def steps(algorithm) -> int:
        results = algorithm.metrics.peek(
            ("env_runners", "num_env_steps_sampled_lifetime"), default=lifetime["steps"]
        )
        return int(results)

    return algorithm_rate(config.build_algo(), steps, arguments.seconds)


def cheetah_rllib_remote(arguments) -> float:
    """Measure with one remote env runner."""
    return cheetah_rllib(arguments, runners=1)


def rllib_model():
    """Return a model config whose actor and critics have two layers of 256."""
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    return DefaultModelConfig(
        fcnet_hiddens=[256, 256],
        fcnet_activation="relu",
        head_fcnet_hiddens=[],
        head_fcnet_activation=None,
    )


def sampling_leray(arguments) -> float:
    """Environment steps per CPU second of LeRay's env runner, policy included."""
    ray_started(arguments)
    from leray.algorithms.sac.algorithm import SACConfig

    config = SACConfig().environment(CHEETAH)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=arguments.envs)
    config.seed = SEED
    algorithm = config.build_algo()
    runner = algorithm.env_runner_group.local_env_runner
    return per_cpu_second(lambda: runner.sample(num_timesteps=1024), 1024, arguments.seconds)


def sampling_rllib(arguments) -> float:
    """Environment steps per CPU second of stock RLlib's env runner, policy included."""
    ray_started(arguments)
    from ray.rllib.algorithms.sac import SACConfig

    config = SACConfig().environment(CHEETAH).rl_module(model_config=rllib_model())
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=arguments.envs, rollout_fragment_length=1
    )
    config.debugging(seed=SEED, log_level="ERROR")
    runner = config.build_algo().env_runner_group.local_env_runner
    return per_cpu_second(lambda: runner.sample(num_timesteps=1024), 1024, arguments.seconds)


def per_cpu_second(sample, steps: int, seconds: float) -> float:
    """Return steps per second of this process's CPU time, the median over calls."""
    sample()
    rates, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 3:
        began = time.process_time()
        sample()
        rates.append(steps / (time.process_time() - began))
    return statistics.median(rates)


if __name__ == "__main__":
    main()
