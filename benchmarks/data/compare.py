"""Datasets, side by side: runs the libraries by turns, round by round, and writes the tables.

    benchmarks/data/run.sh                 everything, about a quarter of an hour
    benchmarks/data/run.sh --smoke         everything at small sizes: does it run, not how fast
    benchmarks/data/run.sh --only windows  one table

The machine must be otherwise idle.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sources  # noqa: E402 - beside this file
import summary  # noqa: E402
from machine import describe, peer_versions  # noqa: E402

LERAY, MEMORY = "measure_leray.py", "memory.py"
PYAV, LEROBOT = "measure_pyav.py", "measure_lerobot.py"
FULL = {
    "rounds": 3,
    "seconds": 2.0,
    "picture_batches": [8, 32, 64],
    "peer_workers": [0, 2],
    "window_episodes": [200, 300],
    "video_episodes": [20, 100],
    "row_episodes": [1000, 1000],
    "limit_mb": 2048,
    "numeric_limit_mb": 256,
}
SMOKE = {
    "rounds": 1,
    "seconds": 0.3,
    "picture_batches": [8],
    "peer_workers": [2],
    "window_episodes": [10, 300],
    "video_episodes": [2, 100],
    "row_episodes": [20, 1000],
    "limit_mb": 2048,
    "numeric_limit_mb": 8,
}
TIMES_LARGER = 4
"""How much larger than its limit the data is whose memory is measured."""
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",  # as `leray train` has it
}


@dataclass
class Run:
    """One process of one library."""

    case: str
    script: str
    root: Path
    options: list[object]
    threads: int | None = None
    """Of numpy and torch; None leaves it to them."""
    what: str | None = None


@dataclass
class Table:
    """What a measurement found: values by (case, name)."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    timelines: list[list[object]] = field(default_factory=list)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", default="outputs/benchmarks/lerobot/bin/python")
    parser.add_argument("--only", nargs="*", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--smoke", action="store_true", help="small sizes, one round")
    for name, value in FULL.items():
        many = isinstance(value, list)
        kind = type(value[0]) if many else type(value)
        parser.add_argument(f"--{name}", type=kind, nargs="+" if many else None, default=value)
    if "--smoke" in sys.argv:
        parser.set_defaults(results=Path("outputs/benchmarks/smoke"), **SMOKE)
    arguments = parser.parse_args()
    for measure in arguments.only:
        table, runs = Table(), list(MEASURES[measure](arguments))
        for number in range(arguments.rounds):
            for run in runs:
                execute(run, arguments, table, number)
        write(measure, table, arguments)
    if arguments.smoke:
        print("\nSmall sizes: everything runs; the figures below say nothing.")
    summary.show(arguments.results, arguments.only)


def windows(arguments) -> Iterator[Run]:
    """Yield the runs for shuffled windows of 100 actions."""
    root = sources.numeric(*arguments.window_episodes)
    seconds = ["--seconds", arguments.seconds]
    yield Run("state", LERAY, root, ["--batches", 8, 64, 256, *seconds], 1, "windows")
    for workers in arguments.peer_workers:
        options = ["--batches", 8, 64, "--workers", workers, *seconds]
        yield Run("state", LEROBOT, root, options, what="stream")


def random_access(arguments) -> Iterator[Run]:
    """Yield the runs for shuffled pictures with windows of 100 actions."""
    seconds = ["--seconds", arguments.seconds]
    for name in sources.VIDEOS:
        root = sources.video(name, *arguments.video_episodes)
        some = [32] if name == "h264_g250" else arguments.picture_batches
        batches = ["--batches", *some]
        yield Run(name, LERAY, root, [*batches, *seconds], None, "random_access")
        for workers in arguments.peer_workers:
            options = [*batches, "--workers", workers, *seconds]
            yield Run(name, LEROBOT, root, options, what="stream")


def sequential(arguments) -> Iterator[Run]:
    """Yield the runs for pictures in stored order."""
    for name in ("h264", "av1"):
        root = sources.video(name, *arguments.video_episodes)
        seconds = ["--seconds", 2 * arguments.seconds]
        yield Run(name, LERAY, root, ["--batches", 32, *seconds], None, "sequential")
        yield Run(name, PYAV, root, ["--seconds", arguments.seconds])


def first_batch(arguments) -> Iterator[Run]:
    """Yield the runs for the time to the first shuffled batch, caches cold."""
    root = sources.numeric(*arguments.row_episodes)
    yield Run("state", LERAY, root, ["--batches", 256], None, "first_batch")
    yield Run("state", LERAY, root, ["--batches", 256], None, "first_batch_ray")
    yield Run("state", LEROBOT, root, ["--batches", 256], what="first_batch")


def memory(arguments) -> Iterator[Run]:
    """Yield the runs for the memory of data that is several times larger than its limit."""
    frames = -(-TIMES_LARGER * arguments.limit_mb * 2**20 // sources.FRAME_BYTES)
    options = ["--batches", 32, "--limit_mb", arguments.limit_mb]
    if arguments.smoke:
        frames //= TIMES_LARGER * 4
    for name in ("h264", "av1"):
        root = sources.repeated(name, *arguments.video_episodes, frames)
        yield Run(name, MEMORY, root, [*options, "--frames", frames], None, "memory_video")
    limit = arguments.numeric_limit_mb
    episodes, length = arguments.row_episodes
    size = -(-TIMES_LARGER * limit * 2**20 // (8 * episodes * length))
    root = sources.numeric(episodes, length, size)
    options = ["--limit_mb", limit, "--seconds", 4 * arguments.seconds]
    yield Run("columns", MEMORY, root, options, 1, "memory_numeric")


MEASURES = {
    "windows": windows,
    "random_access": random_access,
    "sequential": sequential,
    "first_batch": first_batch,
    "memory": memory,
}


def execute(run: Run, arguments, table: Table, number: int) -> None:
    """Run one process and add what it found, with empty caches of its own."""
    python = arguments.peer if run.script == LEROBOT else sys.executable
    command = [python, str(HERE / run.script), *([run.what] if run.what else []), str(run.root)]
    environment = {**os.environ, **RAY, "HF_HUB_OFFLINE": "1"}
    if run.threads:
        environment["OMP_NUM_THREADS"] = str(run.threads)
    caches = Path(tempfile.mkdtemp(prefix="caches-", dir=sources.FOLDER))
    environment |= {"LERAY_CACHE": str(caches), "HF_DATASETS_CACHE": str(caches / "peer")}
    try:
        result = subprocess.run(
            [*command, *map(str, run.options)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    finally:
        shutil.rmtree(caches, ignore_errors=True)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    found = json.loads(lines[-1])
    table.timelines += [[run.case, number, *row] for row in found.pop("timeline", [])]
    for name, value in found.items():
        table.values.setdefault((run.case, name), []).append(value)
        print(f"{run.case:10} {name:45} {value:10.1f}", flush=True)


def write(measure: str, table: Table, arguments) -> None:
    """Write a measurement's table, and what it was measured on."""
    arguments.results.mkdir(parents=True, exist_ok=True)
    with (arguments.results / f"{measure}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "what", "median", "unit", "min", "max", "rounds"])
        for (case, name), series in table.values.items():
            numbers = [f"{pick(series):.3f}" for pick in (statistics.median, min, max)]
            row = [case, name, numbers[0], unit(measure, name), *numbers[1:], len(series)]
            writer.writerow(row)
    if table.timelines:
        with (arguments.results / f"{measure}_timeline.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["case", "round", "s", "driver_pss_mb", "workers_pss_mb", "ray_pss_mb", "rss_mb"]
            )
            for case, number, *values in table.timelines:
                writer.writerow([case, number, *(f"{value:.1f}" for value in values)])
    sizes = {name: getattr(arguments, name) for name in FULL}
    machine = describe("leray", "av", "numpy", "pyarrow", "ray", "torch") | {
        "date": datetime.now(UTC).date().isoformat(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "sizes": sizes,
        "peer": peer_versions(arguments.peer),
    }
    path = arguments.results / f"{measure}_versions.json"
    path.write_text(json.dumps(machine, indent=2) + "\n")


def unit(measure: str, name: str) -> str:
    """Return the unit of a value."""
    for ending, found in (("PSS", "MiB"), ("RSS", "MiB"), ("per_s", "1/s"), ("frames", "frames")):
        if ending in name:
            return found
    if measure == "first_batch" or "start-up" in name:
        return "s"
    return {"windows": "windows/s", "random_access": "samples/s"}.get(measure, "frames/s")


if __name__ == "__main__":
    main()
