"""Which policies keep both ways of a demonstrator who goes left or right at random.

    python benchmarks/learning/two_ways.py

200 episodes of `PandaDetour-v3` are recorded, `leray train` trains BC, Diffusion Policy and VQ-BeT
on them, and each policy then begins 10 times from each of 10 states. What they did is written as
CSV, and their paths as a picture. Runs are kept under `outputs/benchmarks/two_ways`.
"""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from run import HERE, RUNS, describe, leray

from leray.algorithms.registry import load_policy
from leray.data.lerobot.reader import DatasetReader
from leray.envs.config import GymEnvConfig
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap
from leray.envs.panda.tasks import TASKS

TASK = "PandaDetour-v3"
POLICIES = ("bc", "diffusion", "vqbet")
STARTS, TIMES = 10, 10
FIRST_SEED = 1_000_000
ROOT = RUNS / "two_ways"
PILLAR = TASKS["detour"].pillar


def main() -> None:
    """Record, train, play, and write what came of it."""
    demonstrations = ROOT / "demonstrations"
    if not demonstrations.exists():
        record = ["--env.type=gym", f"--env.task={TASK}", "--policy.type=expert"]
        leray("record", [*record, f"--dataset.root={demonstrations}", "--dataset.num_episodes=200"])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, POLICIES))
    paths = {"demonstrations": demonstrated(demonstrations)}
    rows = [row("demonstrations", paths["demonstrations"], [])]
    for kind in POLICIES:
        paths[kind], successes = play(kind)
        rows.append(row(kind, paths[kind], successes))
    results = HERE / "results"
    with (results / "two_ways.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[1]))
        writer.writeheader()
        writer.writerows(rows)
    machine = describe("torch", "mujoco", "diffusers", "leray")
    (results / "two_ways_versions.json").write_text(json.dumps(machine, indent=2) + "\n")
    draw(paths, results / "two_ways.svg")


def train(kind: str) -> None:
    """Train one policy on the demonstrations."""
    if (ROOT / kind / "checkpoints" / "last").exists():
        return
    options = [f"--config_path={HERE / f'detour_{kind}.yaml'}", "--seed=1", "--log_freq=500"]
    options += [f"--dataset.root={ROOT / 'demonstrations'}", "--mlflow.enable=false"]
    leray("train", [*options, f"--output_dir={ROOT / kind}"])


def demonstrated(root: Path) -> list[np.ndarray]:
    """Return the gripper's path in each demonstration, [frames, 3]."""
    columns = DatasetReader.open(root).read(["observation.state"])
    return np.split(columns["observation.state"][:, :3], columns.episode_ends[:-1])


def play(kind: str) -> tuple[list[np.ndarray], list[bool]]:
    """Return the gripper's paths and the successes of one policy, start by start."""
    policy = load_policy(ROOT / kind / "checkpoints" / "last" / "pretrained_model")
    policy.seed(0)
    policy.reset()
    config = GymEnvConfig(task=TASK)
    seeds = [FIRST_SEED + start for start in range(STARTS) for _ in range(TIMES)]
    envs = [make_env(config) for _ in seeds]
    maps = [ObservationMap(env, goal_relative=config.goal_relative) for env in envs]
    now = {number: envs[number].reset(seed=seed)[0] for number, seed in enumerate(seeds)}
    paths: list[list[np.ndarray]] = [[] for _ in seeds]
    successes = [False] * len(seeds)
    while now:
        numbers = list(now)
        seen = [maps[number](now[number]) for number in numbers]
        for number, observation in zip(numbers, seen, strict=True):
            paths[number].append(observation["observation.state"][:3])
        batch = {key: np.stack([observation[key] for observation in seen]) for key in seen[0]}
        for number, action in zip(numbers, policy.act(batch, envs=numbers), strict=True):
            now[number], _, terminated, truncated, info = envs[number].step(action)
            if terminated or truncated:
                successes[number] = bool(info["is_success"])
                del now[number]
    return [np.array(path) for path in paths], successes


def row(policy: str, paths: list[np.ndarray], successes: list[bool]) -> dict[str, object]:
    """Return what one policy did: ways taken, starts from which it took both, successes."""
    sides = [PILLAR.side(path) for path in paths]
    by_start = [set(sides[start : start + TIMES]) for start in range(0, len(sides), TIMES)]
    both = sum({"left", "right"} <= ways for ways in by_start)
    return {
        "policy": policy,
        "episodes": len(paths),
        "left": sides.count("left"),
        "right": sides.count("right"),
        "neither": len(sides) - sides.count("left") - sides.count("right"),
        "starts_with_both_ways": both if successes else "",
        "success_rate": np.mean(successes) if successes else "",
    }


def draw(paths: dict[str, list[np.ndarray]], file: Path) -> None:
    """Draw the paths of each policy from above."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    colours = {"left": "C0", "right": "C1", None: "C3"}
    figure, panels = plt.subplots(1, len(paths), figsize=(12, 4), sharex=True, sharey=True)
    for axes, (name, lines) in zip(panels, paths.items(), strict=True):
        for line in lines[: STARTS * TIMES]:
            colour = colours[PILLAR.side(line)]
            axes.plot(line[:, 1], line[:, 0], color=colour, linewidth=0.6, alpha=0.6)
        axes.add_patch(plt.Circle((PILLAR.y_m, PILLAR.x_m), PILLAR.radius_m, color="0.7"))
        axes.set(title=name, xlabel="y (m)", aspect="equal")
    panels[0].set(ylabel="x (m)")
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    main()
