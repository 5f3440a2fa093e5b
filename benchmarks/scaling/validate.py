"""Runs SAC with one to three remote runners and compares with what the simulation says of them.

    python -m benchmarks.scaling.validate

The environment sleeps instead of computing, so that runners do not take the learner's cores. How
long a step takes is measured with a runner in this process; everything else is predicted. A busy
machine keeps runners from their cores, which no simulation knows of. So the driver is judged by
itself too: by the CPU seconds of its thread, against what the costs make of what it did. Then a
runner is killed, and how long the driver stands still is measured.
"""

import csv
import json
import logging
import os
import signal
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.tune.registry import register_env

from benchmarks.machine import describe
from benchmarks.scaling.costs import RESULTS, Costs, derive, read_values
from benchmarks.scaling.simulate import REQUESTS_IN_FLIGHT, Case, Cluster, Simulation
from leray.algorithms.sac.algorithm import SACConfig

RUNS = [
    # runners, steps per fragment, seconds per step, updates per step
    (1, 16, 0.02, 0.001),
    (3, 16, 0.02, 0.001),
    (3, 16, 0.002, 0.001),
    (3, 16, 0.002, 1.0),
]
WARM_UP_S, MEASURED_S = 3.0, 6.0


class Counts(NamedTuple):
    """What a real run did in a while."""

    seconds: float
    cpu_s: float
    """Of the driver's thread."""
    loops: int
    env_steps: int
    updates: int


class Sleeping(gym.Env):
    """An environment of HalfCheetah's sizes whose steps take as long as they are told to."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (6,), np.float32)

    def __init__(self, step_s: float) -> None:
        self._step_s, self._state = step_s, np.zeros(17, np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin anew (Gymnasium's name)."""
        super().reset(seed=seed)
        return self._state, {}

    def step(self, action):
        """Sleep (Gymnasium's name)."""
        time.sleep(self._step_s)
        return self._state, 0.0, False, False, {}


def main() -> None:
    """Run, compare and write the table."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_worker_niceness="0")
    ray.init(num_cpus=5, include_dashboard=False, logging_level=logging.ERROR)
    torch.set_num_threads(1)
    register_env("sleeping", lambda context: Sleeping(context["step_s"]))
    values = read_values()
    step_s = {seconds: measured_step_s(seconds) for _, _, seconds, _ in RUNS}
    rows = []
    for runners, fragment, seconds, ratio in RUNS:
        counts = measured(runners, fragment, seconds, ratio)
        case = Case(
            step_s=step_s[seconds],
            step_bytes=values["fragment_bytes", 8] / (16 * 8),
            block_bytes=min(size for name, size in values if name == "publish"),
            update_s=values["update", 0],
            utd_ratio=ratio,
            runners_per_node=runners,
            envs=1,
            fragment=fragment,
        )
        cluster, costs = Cluster(nodes=1, nic_gbit_s=1000), derive(values)
        predicted = Simulation(case, cluster, costs).run(MEASURED_S).env_steps_per_s
        row = {
            "runners": runners,
            "fragment": fragment,
            "sleep_s": seconds,
            "step_s": round(step_s[seconds], 6),
            "utd_ratio": ratio,
            "load_average": round(os.getloadavg()[0], 1),
            **compared("env_steps_per_s", counts.env_steps / counts.seconds, predicted),
            **compared("driver_cpu_s", counts.cpu_s, driver_cpu_s(case, costs, counts)),
        }
        rows.append(row)
        print(*row.values(), flush=True)
        write(rows)
    facts = describe("leray", "ray", "torch") | killed()
    ray.shutdown()
    (RESULTS / "validation_versions.json").write_text(json.dumps(facts, indent=2) + "\n")


def driver_cpu_s(case: Case, costs: Costs, counts: Counts) -> float:
    """Return the CPU seconds of the driver that the costs make of what a run did."""
    runners, fragments = case.runners_per_node, counts.env_steps / case.fragment_steps
    pending = REQUESTS_IN_FLIGHT * runners
    look_s = 2 * REQUESTS_IN_FLIGHT * runners * (costs.ask_runner_s + runners * costs.ask_pair_s)
    loop_s = look_s + pending * costs.wait_ref_s + costs.iteration_s
    take_s = costs.submit_s + costs.fetch_s + pending * costs.index_ref_s
    take_s += costs.add_s + costs.add_byte_s * case.fragment_bytes
    publish_s = costs.publish_s + costs.publish_byte_s * case.block_bytes
    publications = min(counts.loops, counts.updates)
    learn_s = counts.updates * case.update_s + publications * publish_s
    return counts.loops * loop_s + fragments * take_s + learn_s


def config_of(runners: int, fragment: int, step_s: float, ratio: float) -> SACConfig:
    """Return SAC on sleeping environments, one per runner."""
    config = SACConfig().environment("sleeping", env_config={"step_s": step_s})
    config.env_runners(num_env_runners=runners)
    config.training(utd_ratio=ratio, online_step_before_learning=0)
    config.pace("async" if runners else "sync", fragment)
    config.min_sample_timesteps_per_iteration = 0
    # else RLlib waits after every training step until all runners have answered
    config._dont_auto_sync_env_runner_states = True  # noqa: SLF001 - there is no other way
    return config


def measured_step_s(seconds: float) -> float:
    """Return how long a step takes with a runner in this process, the policy's share included."""
    algorithm = config_of(0, 16, seconds, 1.0).build_algo()
    runner, times = algorithm.env_runner_group.local_env_runner, []
    for _ in range(8):
        began = time.perf_counter()
        runner.sample(num_timesteps=64)
        times.append((time.perf_counter() - began) / 64)
    algorithm.stop()
    return statistics.median(times)


def measured(runners: int, fragment: int, seconds: float, ratio: float) -> Counts:
    """Run SAC for a while and return what it did."""
    algorithm = config_of(runners, fragment, seconds, ratio).build_algo()
    until = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until or algorithm.env_steps == 0:
        algorithm.train()
    began, cpu, loops = time.perf_counter(), time.thread_time(), 0
    steps, updates = algorithm.env_steps, algorithm.num_updates
    while time.perf_counter() < began + MEASURED_S:
        algorithm.train()
        loops += 1
    passed, used = time.perf_counter() - began, time.thread_time() - cpu
    done = Counts(passed, used, loops, algorithm.env_steps - steps, algorithm.num_updates - updates)
    algorithm.stop()
    return done


def compared(name: str, real: float, simulated: float) -> dict[str, str]:
    """Return a figure as it was measured and as it was predicted, and the prediction's error."""
    return {
        f"measured_{name}": f"{real:.4g}",
        f"predicted_{name}": f"{simulated:.4g}",
        f"error_{name}": f"{simulated / real - 1:+.3f}",
    }


def killed() -> dict[str, float]:
    """Kill one of two runners; return how long the driver stood still, and a runner's memory."""
    algorithm = config_of(2, 16, 0.002, 0.001).build_algo()
    group = algorithm.env_runner_group
    while algorithm.env_steps < 500:
        algorithm.train()
    victim, other = group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)
    memory_mb = own_memory_mb(other)
    os.kill(victim, signal.SIGKILL)
    longest_s, until = 0.0, time.perf_counter() + 5.0
    while time.perf_counter() < until or group.num_healthy_remote_workers() < 2:
        began = time.perf_counter()
        algorithm.train()
        longest_s = max(longest_s, time.perf_counter() - began)
    algorithm.stop()
    return {"longest_step_after_kill_s": round(longest_s, 2), "runner_uss_mb": memory_mb}


def own_memory_mb(pid: int) -> int:
    """Return the memory that would be free without a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) // 1024


def write(rows: list[dict]) -> None:
    """Write the table."""
    with (RESULTS / "validation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
