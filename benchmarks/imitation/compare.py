"""Updates of ACT and Diffusion Policy beside LeRobot's, by turns, alone and with each one's loader.

    benchmarks/imitation/run.sh               everything, about half an hour
    benchmarks/imitation/run.sh --smoke       one update each: does it run, not how fast
    benchmarks/imitation/run.sh --only diffusion

Both read the same video datasets, have the same options (the defaults, but for what `CASES` says)
and as many parameters. The machine must be otherwise idle.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "data")]
import sources  # noqa: E402 - beside this folder
from machine import describe, peer_versions  # noqa: E402

ACT = {"type": "act", "pretrained_backbone_weights": None}
DIFFUSION = {"type": "diffusion"}
CASES = {
    "act": (ACT, (96, 96)),
    "act_480x640": (ACT, (480, 640)),
    "diffusion": (DIFFUSION | {"crop_shape": [84, 84]}, (96, 96)),
    "diffusion_small": (
        DIFFUSION | {"crop_shape": [84, 84], "down_dims": [128, 256, 512]},
        (96, 96),
    ),
}
"""Options, and height and width of the one camera."""
WHAT = ("update", "end_to_end")
ROUNDS, UPDATES = 3, 8
EPISODES, FRAMES = 20, 100


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", default="outputs/benchmarks/lerobot/bin/python")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--smoke", action="store_true", help="one round of one update")
    if "--smoke" in sys.argv:
        results = Path("outputs/benchmarks/smoke")
        parser.set_defaults(rounds=1, updates=1, results=results)
    arguments = parser.parse_args()
    rows = []
    for case in arguments.only:
        for what in WHAT:
            rows.append(measure(case, what, arguments))
            write(rows, arguments)


def measure(case: str, what: str, arguments) -> dict[str, object]:
    """Run both libraries by turns; the ratio is the median of each round's own."""
    policy, size = CASES[case]
    root = sources.video("h264", EPISODES, FRAMES, *size)
    found: dict[str, list[dict[str, float]]] = {"leray": [], "lerobot": []}
    for number in range(arguments.rounds):
        order = list(found) if number % 2 == 0 else list(found)[::-1]
        for library in order:
            found[library].append(execute(library, policy, root, what, arguments))
    ours, theirs = ([run["samples_per_s"] for run in found[key]] for key in found)
    parameters = {run["parameters"] for runs in found.values() for run in runs}
    if len(parameters) != 1:
        raise SystemExit(f"{case}: the networks differ, they have {parameters} parameters")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    row = {
        "case": case,
        "what": what,
        "parameters": parameters.pop(),
        "leray_samples_per_s": f"{statistics.median(ours):.3f}",
        "lerobot_samples_per_s": f"{statistics.median(theirs):.3f}",
        "ratio": f"{statistics.median(ratios):.3f}",
        "ratio_min": f"{min(ratios):.3f}",
        "ratio_max": f"{max(ratios):.3f}",
        "rounds": arguments.rounds,
    }
    print(row, flush=True)
    return row


def execute(library: str, policy: dict, root: Path, what: str, arguments) -> dict[str, float]:
    """Run one process of one library and return what it printed."""
    python = sys.executable if library == "leray" else arguments.peer
    command = [python, str(HERE / f"measure_{library}.py"), what, str(root)]
    command += ["--policy", json.dumps(policy), "--updates", str(arguments.updates)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return json.loads(lines[-1])


def write(rows: list[dict[str, object]], arguments) -> None:
    """Write the table so far, and what it was measured on."""
    arguments.results.mkdir(parents=True, exist_ok=True)
    with (arguments.results / "imitation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    machine = describe("leray", "torch", "diffusers", "av") | {
        "date": datetime.now(UTC).date().isoformat(),
        "updates_per_round": arguments.updates,
        "cases": {case: {"policy": CASES[case][0], "camera": CASES[case][1]} for case in CASES},
        "peer": peer_versions(arguments.peer),
    }
    path = arguments.results / "imitation_versions.json"
    path.write_text(json.dumps(machine, indent=2) + "\n")


if __name__ == "__main__":
    main()
