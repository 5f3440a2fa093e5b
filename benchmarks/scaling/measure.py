"""Measures what the operations of an online run cost, one at a time, and writes `costs.csv`.

    python -m benchmarks.scaling.measure

Figures are CPU seconds of the thread that does the work, so that a busy machine changes little;
where several threads of the process share it, of all of them (`process`). What other processes do
meanwhile is not in them; the latency of an empty call is told in wall seconds. Each figure is the
median over repeats, with the least and the greatest beside it.
"""

import argparse
import csv
import json
import logging
import os
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import ray
import torch

from benchmarks.machine import describe
from benchmarks.scaling.costs import RESULTS
from leray.algorithms.offpolicy.algorithm import REQUESTS_IN_FLIGHT, OffPolicyAlgorithm
from leray.algorithms.offpolicy.pacing import Pacing
from leray.algorithms.replay.ring import ReplayBuffer
from leray.data.features import Feature, Features
from leray.envs.config import GymEnvConfig
from leray.envs.fragment import Fragment

STATE = Features(
    {"observation.state": Feature("float32", (17,)), "action": Feature("float32", (6,))}
)
IMAGES = Features(
    {
        "observation.state": Feature("float32", (17,)),
        "observation.images.front": Feature("uint8", (84, 84, 3)),
        "observation.images.wrist": Feature("uint8", (84, 84, 3)),
        "action": Feature("float32", (6,)),
    }
)
FRAGMENT = 16
BLOCKS = {"SAC 2x256": 73_484, "ResNet-18": 11_180_000}
"""Parameters of the acting weights: an actor of 17 to 6, and pictures through a ResNet-18."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    parameter: int
    values: list[float]
    unit: str
    clock: str


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_worker_niceness="0")
    ray.init(num_cpus=4, include_dashboard=False, logging_level=logging.ERROR)
    rows: list[Row] = []
    for measure in (asking, adding, learning, stepping, iterating, calling, fetching, publishing):
        for row in measure(repeats):
            print(
                row.name,
                row.parameter,
                f"{statistics.median(row.values):.3g}",
                row.unit,
                flush=True,
            )
            rows.append(row)
    ray.shutdown()
    write(rows)


def repeated(
    function: Callable[[], object], repeats: int, clock: Callable[[], float], calls: int = 1
) -> list[float]:
    """Return seconds per call, one value per repeat, after a warm-up."""
    function()
    values = []
    for _ in range(repeats):
        began = clock()
        for _ in range(calls):
            function()
        values.append((clock() - began) / calls)
    return values


def asking(repeats: int) -> Iterator[Row]:
    """The driver's look at its runners: all with requests in flight, or all free but paced out."""
    group = SimpleNamespace(num_envs_per_env_runner=8)
    for number in (10, 100, 1000, 3000):
        for name, in_flight in (("ask_full", REQUESTS_IN_FLIGHT), ("ask_free", 0)):
            runners = list(range(1, number + 1))
            driver = SimpleNamespace(
                config=SimpleNamespace(rollout_fragment_length=FRAGMENT, num_envs_per_env_runner=8),
                env_runner_group=SimpleNamespace(
                    healthy_env_runner_ids=partial(list, runners),
                    group_of=lambda _: group,
                ),
                pacing=Pacing(1.0, 0, env_steps=10**9),
                env_steps=10**9,
                _in_flight=dict.fromkeys(runners, in_flight),
            )
            ask = partial(OffPolicyAlgorithm._ask, driver)  # noqa: SLF001 - what is measured
            calls = max(1, 1000 // number)
            values = repeated(ask, repeats, time.thread_time, calls)
            yield Row(name, number, values, "s/call", "cpu")


def fragment_of(features: Features, envs: int, stream: int = 0) -> Fragment:
    """Return a fragment of random experience in which no episode ends."""
    rng = np.random.default_rng(0)

    def column(feature: Feature, *leading: int) -> np.ndarray:
        if feature.dtype == "uint8":
            return rng.integers(0, 255, (*leading, *feature.shape), np.uint8)
        return rng.normal(size=(*leading, *feature.shape)).astype(feature.dtype)

    observations = {key: value for key, value in features.items() if key != "action"}
    flags = np.zeros((FRAGMENT, envs), bool)
    return Fragment(
        columns={key: column(feature, FRAGMENT, envs) for key, feature in features.items()}
        | {
            "next.reward": np.zeros((FRAGMENT, envs), np.float32),
            "next.done": flags,
            "next.truncated": flags.copy(),
        },
        tail={key: column(feature, envs) for key, feature in observations.items()},
        final={key: column(feature, 0) for key, feature in observations.items()},
        streams=np.arange(stream, stream + envs),
    )


def adding(repeats: int) -> Iterator[Row]:
    """Appending a fragment to a replay on disk, and how large it is on its way there.

    A ring's rows cost more when they are written for the first time (`_first`): the system has to
    find memory for them.
    """
    for name, features, sizes, capacity in (
        ("add", STATE, (1, 8, 32, 128), 400_000),
        ("add_images", IMAGES, (4,), 6_000),
    ):
        for envs in sizes:
            fragment = fragment_of(features, envs)
            with TemporaryDirectory() as folder:
                replay = ReplayBuffer(features, capacity, folder=Path(folder) / "replay")
                add = partial(replay.add, fragment)
                first = repeated(add, repeats, time.thread_time, 10)
                while replay.head < capacity:
                    add()
                again = repeated(add, repeats, time.thread_time, 10)
            yield Row(f"{name}_first", envs, first, "s/fragment", "cpu")
            yield Row(name, envs, again, "s/fragment", "cpu")
            size = float(len(pickle.dumps(fragment, protocol=5)))
            parts = name.replace("add", "fragment_bytes")
            yield Row(parts, envs, [size], "B", "count")


def learning(repeats: int) -> Iterator[Row]:
    """One update of SAC with one thread, sampling included."""
    from benchmarks.speed.measure import leray_parts

    learner, sampler = leray_parts()
    update = repeated(lambda: learner.update(sampler.sample()), repeats, time.thread_time, 50)
    yield Row("update", 0, update, "s/update", "cpu")


def stepping(repeats: int) -> Iterator[Row]:
    """One environment step on a core: with SAC's actor where it can see, else random actions."""
    from leray.algorithms.processor import make_processor
    from leray.algorithms.sac.config import SACPolicyConfig
    from leray.algorithms.sac.policy import SACPolicy
    from leray.envs.collector import Collector
    from leray.envs.make import make_env
    from leray.envs.vector import VectorEnv

    pixels = {"cameras": ["front", "wrist"], "observation_height": 84, "observation_width": 84}
    for name, task, kwargs, envs in (
        ("step_cheetah", "HalfCheetah-v5", {}, 8),
        ("step_panda", "PandaPickAndPlace-v3", {}, 8),
        ("step_panda_images", "PandaPickAndPlacePixels-v3", pixels, 4),
    ):
        config = GymEnvConfig(task=task, kwargs=kwargs)
        vector = VectorEnv(
            lambda c=config: make_env(c), envs, goal_relative=True, seeds=list(range(envs))
        )
        collector = Collector(vector, first_stream=0, runner=0)
        space = vector.envs[0].action_space
        space.seed(0)
        if pixels is kwargs:

            def act(_, space=space, envs=envs):
                return np.stack([space.sample() for _ in range(envs)])
        else:
            policy = SACPolicy(SACPolicyConfig(), make_processor(vector.features, {}, None))
            policy.initialize(torch.Generator().manual_seed(0))

            def act(observations, policy=policy):
                return policy.act(observations, deterministic=False)

        steps = 8 if pixels is kwargs else 128
        values = repeated(partial(collector.collect, steps, act), repeats, time.process_time)
        yield Row(name, envs, [value / (steps * envs) for value in values], "s/env step", "process")
        vector.close()


def iterating(repeats: int) -> Iterator[Row]:
    """What RLlib does around a training step that has nothing to do."""
    from leray.algorithms.sac.algorithm import SACConfig

    config = SACConfig().environment("HalfCheetah-v5").env_runners(num_env_runners=0)
    config.min_sample_timesteps_per_iteration = 0
    algorithm = config.build_algo()
    algorithm.boundary = algorithm.env_steps
    values = repeated(algorithm.train, repeats, time.thread_time, 20)
    algorithm.stop()
    yield Row("iteration", 0, values, "s/call", "cpu")


@ray.remote(num_cpus=0)
class Stub:
    """A runner that costs nothing: it hands out a fragment made before."""

    def __init__(self, fragment: Fragment | None = None) -> None:
        self._fragment = fragment

    def apply(self, func: Callable[..., object], **kwargs: object) -> object:
        """Call a function with this actor, as RLlib's runners do."""
        return func(self, **kwargs)

    def try_sample(self, **_: object) -> list[Fragment | None]:
        """Return the fragment."""
        return [self._fragment]

    def sleep(self, seconds: float) -> None:
        """Keep calls waiting that come later."""
        time.sleep(seconds)


def calling(repeats: int) -> Iterator[Row]:
    """An empty call there and back, one more call sent, and `ray.wait` over calls that wait."""
    from ray.rllib.utils.actor_manager import FaultTolerantActorManager

    stub = Stub.remote()
    values = repeated(lambda: ray.get(stub.try_sample.remote()), repeats, time.perf_counter, 50)
    yield Row("round_trip", 0, values, "s/call", "wall")
    block, request = ray.put(torch.zeros(BLOCKS["SAC 2x256"])), {"version": 0, "num_timesteps": 128}
    manager = FaultTolerantActorManager([stub], 100_000)

    def submit() -> None:
        kwargs = {**request, "random_actions": False, "block": block}
        manager.foreach_actor_async("try_sample", "t", kwargs=kwargs, remote_actor_ids=[0])

    values = repeated(submit, repeats, time.thread_time, 100)
    yield Row("submit", 1, values, "s/call", "cpu")
    manager.fetch_ready_async_reqs(tags=["t"], timeout_seconds=10.0)
    blocked = stub.sleep.remote(3600)
    pending: list = []
    for number in (1000, 10_000):
        pending += [stub.try_sample.remote() for _ in range(number - len(pending))]
        wait = partial(ray.wait, pending, num_returns=number, timeout=0.0)
        values = repeated(wait, repeats, time.thread_time)
        yield Row("wait", number, values, "s/call", "cpu")
    ray.kill(stub)
    del blocked


def fetching(repeats: int) -> Iterator[Row]:
    """Taking fragments with RLlib's actor manager, among more or fewer of them."""
    from ray.rllib.utils.actor_manager import FaultTolerantActorManager

    for name, features, envs, numbers in (
        ("fetch_state", STATE, 8, (50, 500, 2000)),
        ("fetch_images", IMAGES, 4, (4,)),
    ):
        stub = Stub.remote(fragment_of(features, envs))
        manager = FaultTolerantActorManager([stub], 100_000)
        for number in numbers:
            values = []
            for _ in range(repeats):
                for _ in range(number):
                    manager.foreach_actor_async("try_sample", "t", remote_actor_ids=[0])
                ray.get(stub.try_sample.remote())  # the last of all calls
                time.sleep(0.2)
                began = time.thread_time()
                results = list(manager.fetch_ready_async_reqs(tags=["t"], timeout_seconds=0.0))
                values.append((time.thread_time() - began) / number)
                assert len(results) == number
                del results
            yield Row(name, number, values, "s/fragment", "cpu")
        ray.kill(stub)


def publishing(repeats: int) -> Iterator[Row]:
    """Copying weights and putting them into the object store; a runner takes them over."""

    def publish(weights: torch.Tensor) -> ray.ObjectRef:
        return ray.put(weights.detach().cpu().clone())

    def load(acting: torch.Tensor, block: ray.ObjectRef) -> None:
        acting.copy_(ray.get(block))

    for parameters in BLOCKS.values():
        weights, size = torch.zeros(parameters), 4 * parameters
        calls = 20 if parameters < 1e6 else 2
        values = repeated(partial(publish, weights), repeats, time.process_time, calls)
        yield Row("publish", size, values, "s/call", "process")
        taken = partial(load, torch.zeros(parameters), publish(weights))
        values = repeated(taken, repeats, time.process_time, calls)
        yield Row("load", size, values, "s/call", "process")


def write(rows: list[Row]) -> None:
    """Write the table, and what it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "costs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "parameter", "median", "unit", "min", "max", "repeats", "clock"])
        for name, parameter, values, unit, clock in rows:
            figures = [statistics.median(values), min(values), max(values)]
            median, least, most = (f"{figure:.4g}" for figure in figures)
            writer.writerow([name, parameter, median, unit, least, most, len(values), clock])
    machine = describe("leray", "torch", "ray", "gymnasium", "mujoco", "numpy")
    (RESULTS / "costs_versions.json").write_text(json.dumps(machine, indent=2) + "\n")


if __name__ == "__main__":
    main()
