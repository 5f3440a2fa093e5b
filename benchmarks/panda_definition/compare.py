"""Measure LeRay's Panda tasks beside panda-gym's, probe by probe.

Run it in an interpreter that has gymnasium and mujoco, from the repository's root:

    python benchmarks/panda_definition/compare.py

For the panda_gym column install it there too: pip install panda-gym pybullet. Writes
results.csv next to this file.
"""

import csv
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from leray.envs import panda
from leray.envs.panda.expert import make_expert

RESULTS = Path(__file__).with_name("results.csv")
AXES = {
    "+x": (1, 0, 0),
    "-x": (-1, 0, 0),
    "+y": (0, 1, 0),
    "+z": (0, 0, 1),
    "-z": (0, 0, -1),
    "0.2 x": (0.2, 0, 0),
    "0.2 y": (0, 0.2, 0),
}
SPEED_STEPS = 1000
PACKAGES = ("mujoco", "pybullet", "panda-gym", "gymnasium", "numpy")
Make = Callable[[str], gym.Env[Any, Any]]
Row = tuple[str, str]


def position(observation: dict[str, Any]) -> np.ndarray:
    return observation["observation"][:3].astype(float)


def list_mm(values: Any) -> str:
    return " ".join(f"{1000 * value:.1f}" for value in values)


def displacements(make: Make) -> Iterator[Row]:
    env = make("PandaReach-v3")
    for name, action in AXES.items():
        observation, _ = env.reset(seed=1)
        at, moved = position(observation), []
        for _ in range(8):
            before, at = at, position(env.step(np.array(action, np.float32))[0])
            moved.append((at - before) @ action / np.linalg.norm(action))
        yield f"displacement per step, action {name} (mm)", list_mm(moved)
    env.close()


def rest(make: Make) -> Iterator[Row]:
    env = make("PandaReach-v3")
    zero = np.zeros(3, np.float32)
    for name in ("+x", "+y", "-z"):
        env.reset(seed=1)
        for _ in range(3):
            stopped = position(env.step(np.array(AXES[name], np.float32))[0])
        for _ in range(4):
            at = position(env.step(zero)[0])
        yield f"coast after 3 full steps {name}, then 4 of zero (mm x y z)", list_mm(at - stopped)
    start = position(env.reset(seed=1)[0])
    for _ in range(20):
        at = position(env.step(zero)[0])
    yield "drift in 20 steps of zero (mm)", list_mm([np.linalg.norm(at - start)])
    env.reset(seed=1)
    for _ in range(12):
        at = position(env.step(np.array(AXES["-z"], np.float32))[0])
    yield "height after 12 full steps down (mm)", list_mm([at[2]])
    env.close()


def joints_and_fingers(make: Make) -> Iterator[Row]:
    env = make("PandaReachJoints-v3")
    for joint in range(6):
        at, moved = position(env.reset(seed=1)[0]), []
        for _ in range(5):
            before, at = at, position(env.step(np.eye(7, dtype=np.float32)[joint])[0])
            moved.append(np.linalg.norm(at - before))
        yield f"gripper path per full step of joint {joint + 1} (mm)", list_mm(moved)
    env.close()
    env = make("PandaPickAndPlace-v3")
    env.reset(seed=0)
    for name, action in (("+1", 1), ("-1", -1), ("+0.2", 0.2)):
        steps = [env.step(np.array([0, 0, 0, action], np.float32))[0] for _ in range(4)]
        yield f"finger width, action {name} (mm)", list_mm(o["observation"][6] for o in steps)
    env.close()


def random_policy(make: Make) -> Iterator[Row]:
    for task in ("Reach", "Push", "PickAndPlace"):
        env = make(f"Panda{task}-v3")
        solved = [bool(env.reset(seed=seed)[1]["is_success"]) for seed in range(500)]
        yield f"{task}: solved at reset, 500 seeds (%)", f"{100 * np.mean(solved):.1f}"
        actions, successes, returns = np.random.default_rng(0), 0, []
        for seed in range(200):
            env.reset(seed=seed)
            total, ended = 0.0, False
            while not ended:
                action = actions.uniform(-1, 1, env.action_space.shape).astype(np.float32)
                _, reward, terminated, truncated, _ = env.step(action)
                total, ended = total + reward, terminated or truncated
            successes += terminated
            returns.append(total)
        yield f"{task}: random policy success, 200 episodes (%)", f"{successes / 2:.1f}"
        yield f"{task}: random policy return", f"{np.mean(returns):.1f}"
        env.close()


def rollouts(env: gym.Env[Any, Any], act: Callable[[Any], Any], begin: Callable[[], None]) -> str:
    steps, solved = [], 0
    for seed in range(100):
        observation, _ = env.reset(seed=seed)
        begin()
        for step in range(1, 51):  # noqa: B007 - the last value is the length
            observation, _, terminated, truncated, _ = env.step(act(observation))
            if terminated or truncated:
                break
        solved += terminated
        steps.append(step)
    env.close()
    return f"{solved} {np.mean(steps):.1f} {max(steps)}"


def controllers(make: Make) -> Iterator[Row]:
    def proportional(observation: Any) -> Any:
        return np.clip(20 * (observation["desired_goal"] - observation["achieved_goal"]), -1, 1)

    yield (
        "P-controller on Reach, 100 seeds (% solved, mean and max steps)",
        rollouts(make("PandaReach-v3"), proportional, lambda: None),
    )
    names = {"Reach": "reach", "Push": "push", "PickAndPlace": "pick_and_place"}
    for task, name in names.items():
        for suffix, control in (("", "ee"), ("Joints", "joints")):
            expert = make_expert(name, control)
            result = rollouts(make(f"Panda{task}{suffix}-v3"), expert.act, expert.reset)
            yield f"LeRay's expert on {task}{suffix}, 100 seeds (as above)", result


def speed(make: Make) -> Iterator[Row]:
    """Count steps per second inside `step` alone, on one core, random actions."""
    for task in ("Reach", "Push", "PickAndPlace"):
        env = make(f"Panda{task}-v3")
        shape = (SPEED_STEPS, *env.action_space.shape)
        actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        rates = []
        for block in np.split(actions, SPEED_STEPS // 50):
            env.reset(seed=0)
            start = time.perf_counter()
            for action in block:
                env.step(action)
            rates.append(len(block) / (time.perf_counter() - start))
        env.close()
        yield f"{task}: steps/s, median of 50-step blocks", f"{np.median(rates):.0f}"
        yield f"{task}: steps/s, best block", f"{max(rates):.0f}"


PROBES = (displacements, rest, joints_and_fingers, random_policy, controllers, speed)


def columns() -> dict[str, Make]:
    makes: dict[str, Make] = {}
    if importlib.util.find_spec("panda_gym") is None:
        print("panda_gym is not installed here: pip install panda-gym pybullet", file=sys.stderr)
    else:
        importlib.import_module("panda_gym")  # takes the bare ids, which LeRay then leaves alone
        makes["panda_gym"] = gym.make
    panda.register()
    return {**makes, "leray": lambda env_id: gym.make(f"leray/{env_id}")}


def main() -> None:
    warnings.filterwarnings("ignore")
    makes = columns()
    with RESULTS.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["probe", *makes])
        for probe in PROBES:
            for rows in zip(*(probe(make) for make in makes.values()), strict=True):
                table.writerow([rows[0][0], *(value for _, value in rows)])
                print(rows[0][0], *(value for _, value in rows), sep=" | ", flush=True)
        found = [f"{name} {release}" for name in PACKAGES if (release := version(name))]
        table.writerow([f"versions: {', '.join(found)}; Python {platform.python_version()}"])
        table.writerow([f"machine: {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"])


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
