"""Learning curves: runs `leray train` per variant and seed, gathers evaluations into CSV and SVG.

    python benchmarks/learning/run.py panda --seeds 1 2 3 --jobs 2
    python benchmarks/learning/run.py halfcheetah --seeds 1 2 3 --jobs 2
    python benchmarks/learning/run.py panda_bc --seeds 1 2 3 --jobs 2
    python benchmarks/learning/run.py imitation --seeds 1 2 3 --jobs 2
    python benchmarks/learning/run.py pixels --seeds 1

`panda_bc` clones the demonstrations of `panda` (variant `bc`), then SAC goes on with that actor
(`bc_sac`); its curves begin with the clone, at step 0. `imitation` learns from 200 demonstrations
of the same task, `pixels` from 600 of PandaReach as pictures; their curves are over updates.

Runs are kept under `outputs/benchmarks/`; one that was interrupted goes on where it was.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from machine import describe  # noqa: E402 - a script beside this folder

RUNS = Path("outputs/benchmarks")
EVAL_100 = ["--eval.n_episodes=100", "--eval.max_episodes_rendered=0", "--log_freq=1000"]
PANDA = [f"--config_path={HERE / 'panda.yaml'}", *EVAL_100, "--save_freq=5000"]
DEMOS = RUNS / "panda_demos"
PICK = ["--env.type=gym", "--env.task=PandaPickAndPlace-v3"]
PANDA_BC = [f"--dataset.root={DEMOS}", *PICK]
BC = ["--policy.type=bc", *PANDA_BC, *EVAL_100, "--eval_freq=0", "--steps=3000"]
BC_SAC = ["--policy.type=sac", *PANDA_BC, *EVAL_100, "--eval_freq=250", "--steps=4000"]
BC_SAC += [f"--policy.pretrained_path={RUNS}/panda_bc/bc_seed{{seed}}"]
BC_SAC += ["--policy.online_step_before_learning=500"]
REACH = ["--env.type=gym", "--env.task=PandaReachPixels-v3"]
CHEETAH = ["--env.type=gym", "--env.task=HalfCheetah-v5", "--policy.type=sac", "--steps=100000"]
CHEETAH += ["--eval.n_episodes=10", "--eval.max_episodes_rendered=0", "--eval_freq=10000"]
CHEETAH += ["--save_freq=20000", "--policy.online_step_before_learning=5000"]
SUITES = {
    "panda": {
        "sac_50_demos": [*PANDA, "--eval_freq=1000", f"--dataset.root={DEMOS}"],
        "sac_no_demos": [*PANDA, "--eval_freq=1000"],
    },
    "panda_bc": {"bc": BC, "bc_sac": BC_SAC},
    "imitation": {
        kind: [f"--config_path={HERE}/{kind}.yaml", f"--dataset.root={RUNS}/pick_200", *EVAL_100]
        for kind in ("bc", "act", "diffusion", "vqbet")
    },
    "pixels": {
        "act": [
            *(f"--config_path={HERE}/act_pixels.yaml", f"--dataset.root={RUNS}/reach_600"),
            *EVAL_100,
        ]
    },
    "halfcheetah": {"sac": CHEETAH, "sac_bfloat16": [*CHEETAH, "--policy.precision=bfloat16"]},
}

DEMONSTRATIONS = {
    "panda": ("panda_demos", PICK, 50),
    "panda_bc": ("panda_demos", PICK, 50),
    "imitation": ("pick_200", PICK, 200),
    "pixels": ("reach_600", REACH, 600),
}
OVER_UPDATES = ("imitation", "pixels")
"""Suites that take no environment step."""


def main() -> None:
    """Run a suite and write its curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--variants", nargs="*")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, a core each")
    arguments = parser.parse_args()
    record(arguments.suite)
    variants = arguments.variants or list(SUITES[arguments.suite])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for variant in variants:  # one after the other: some begin where another ended
            list(pool.map(partial(train, arguments.suite, variant), arguments.seeds))
    collect(arguments.suite)


def record(suite: str) -> None:
    """Record the demonstrations that a suite learns from, if they are not there."""
    name, env, episodes = DEMONSTRATIONS.get(suite, ("", [], 0))
    if name and not (RUNS / name).exists():
        options = [*env, "--policy.type=expert", f"--dataset.root={RUNS / name}"]
        leray("record", [*options, f"--dataset.num_episodes={episodes}"])


def train(suite: str, variant: str, seed: int) -> None:
    """Train one seed of one variant."""
    root = RUNS / suite / f"{variant}_seed{seed}"
    options = [option.format(seed=seed) for option in SUITES[suite][variant]]
    options += [f"--seed={seed}", "--mlflow.enable=false"]
    if (root / "train_config.yaml").exists():
        options = ["--resume=true"]
    began = time.time()
    leray("train", [*options, f"--output_dir={root}"])
    with (root / "wall_s").open("a") as file:
        file.write(f"{time.time() - began:.1f}\n")


def leray(command: str, options: list[str]) -> None:
    """Run one command of LeRay on one core."""
    log = RUNS / "log" / f"{os.getpid()}_{time.time_ns()}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with log.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "leray", command, *options],
            check=True,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def collect(suite: str) -> None:
    """Write every evaluation of a suite's runs as CSV, and draw them."""
    rows = []
    for root in sorted((RUNS / suite).iterdir()):
        variant, _, seed = root.name.rpartition("_seed")
        for line in (root / "logs" / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if "eval/return_mean" in record:
                rate = record.get("eval/success_rate", "")
                curve = ("bc_sac", int(seed), 0)  # the clone has taken no step
                if (suite, variant) != ("panda_bc", "bc"):
                    curve = (variant, int(seed), record["step"])
                rows.append([*curve, record["eval/return_mean"], rate])
    rows.sort()
    path = HERE / "results" / f"{suite}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        unit = "update" if suite in OVER_UPDATES else "env_step"
        writer.writerow(["variant", "seed", unit, "eval_return_mean", "eval_success_rate"])
        writer.writerows(rows)
    machine = describe("torch", "ray", "mujoco", "gymnasium", "leray")
    (HERE / "results" / f"{suite}_versions.json").write_text(json.dumps(machine, indent=2) + "\n")
    draw(suite, rows)
    print(path)


def draw(suite: str, rows: list[list]) -> None:
    """Draw one line per seed, one colour per variant."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    column, label = (3, "mean return") if suite == "halfcheetah" else (4, "success rate")
    figure, axes = plt.subplots(figsize=(7, 4))
    variants = sorted({row[0] for row in rows})
    for number, variant in enumerate(variants):
        for seed in sorted({row[1] for row in rows if row[0] == variant}):
            curve = [row for row in rows if row[:2] == [variant, seed]]
            axes.plot(
                [row[2] for row in curve],
                [float(row[column]) for row in curve],
                color=f"C{number}",
                label=variant if seed == min(r[1] for r in rows if r[0] == variant) else None,
            )
    unit = "updates" if suite in OVER_UPDATES else "environment steps"
    axes.set(xlabel=unit, ylabel=f"evaluation {label}", title=suite)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(HERE / "results" / f"{suite}.svg", bbox_inches="tight")


if __name__ == "__main__":
    main()
