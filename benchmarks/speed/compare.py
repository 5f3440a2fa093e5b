"""Speed, side by side: alternates the libraries round by round and writes medians and ratios.

    python benchmarks/speed/compare.py --peers <python with stable-baselines3 and sbx> --rounds 3

The machine must be otherwise idle: two-thread torch collapses when another process wants a core.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from machine import describe  # noqa: E402 - a script beside this folder

PEERS = {"sb3", "sbx"}
MEASUREMENTS = [
    ("learner", ["leray", "leray_bfloat16", "sb3", "sbx"], [{}]),
    (
        "cheetah",
        ["leray", "leray_bfloat16", "leray_remote", "sb3", "rllib", "rllib_remote"],
        [{}],
    ),
    ("sampling", ["leray", "rllib"], [{"envs": 1}, {"envs": 8}, {"envs": 32}]),
    ("replay", ["leray"], [{}]),
]
UNITS = {
    "learner": "updates/s",
    "cheetah": "env steps/s, one update each",
    "sampling": "env steps per CPU second",
    "replay": "us per sample(256)",
}


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="outputs/benchmarks/peers/bin/python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", nargs="*", choices=list(UNITS))
    arguments = parser.parse_args()
    rows = []
    for what, libraries, variants in MEASUREMENTS:
        if arguments.only and what not in arguments.only:
            continue
        for variant in variants:
            values: dict[str, list[float]] = {library: [] for library in libraries}
            for _ in range(arguments.rounds):
                for library in libraries:
                    threads = 1 if what == "sampling" else arguments.threads
                    values[library].append(measure(arguments, what, library, threads, variant))
                    print(what, variant, library, f"{values[library][-1]:.1f}", flush=True)
            ours = statistics.median(values["leray"])
            for library, series in values.items():
                median = statistics.median(series)
                name = what + "".join(f" {k}={v}" for k, v in variant.items())
                spread = f"{min(series):.1f}", f"{max(series):.1f}", len(series)
                ratio = f"{median / ours:.3f}"
                rows.append([name, library, f"{median:.1f}", UNITS[what], ratio, *spread])
    write(rows, arguments)


def measure(arguments, what: str, library: str, threads: int, variant: dict) -> float:
    """Run one measurement in a process of its own."""
    python = arguments.peers if library in PEERS else sys.executable
    options = [f"--{key}={value}" for key, value in variant.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    options += ["--threads", str(threads), "--seconds", str(arguments.seconds)]
    result = subprocess.run(
        [python, str(HERE / "measure.py"), what, "--library", library, *options],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    for line in reversed(result.stdout.splitlines()):
        if line.startswith("{"):
            return float(json.loads(line)["value"])
    raise SystemExit(f"{what} of {library} failed:\n{result.stderr[-3000:]}")


def write(rows: list[list], arguments) -> None:
    """Write the CSV, and what it was measured on."""
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with (results / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["measurement", "library", "median", "unit", "ratio_to_leray", "min", "max", "rounds"]
        )
        writer.writerows(rows)
    listed = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in "
    listed += "('torch', 'jax', 'stable-baselines3', 'sbx-rl', 'gymnasium', 'mujoco')}))"
    peers = subprocess.run([arguments.peers, "-c", listed], capture_output=True, text=True)
    machine = describe("leray", "torch", "ray", "gymnasium", "mujoco")
    machine |= {"threads": arguments.threads, "peers": json.loads(peers.stdout or "{}")}
    (results / "speed_versions.json").write_text(json.dumps(machine, indent=2) + "\n")


if __name__ == "__main__":
    main()
