"""Prints the ratios of the tables beside what they are meant to be.

python benchmarks/data/summary.py [folder of the tables]
"""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

Values = dict[tuple[str, str], float]


def main() -> None:
    """Print the summary of a folder."""
    results = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "results"
    show(results, [name for name in LINES if (results / f"{name}.csv").exists()])


def show(results: Path, measures: list[str]) -> None:
    """Print what the tables of some measures say."""
    for measure in measures:
        with (results / f"{measure}.csv").open() as file:
            values = {(r["case"], r["what"]): float(r["median"]) for r in csv.DictReader(file)}
        sizes = json.loads((results / f"{measure}_versions.json").read_text())["sizes"]
        print(f"\n{measure}")
        for line in LINES[measure](values, sizes):
            print(f"  {line}")


def best(values: Values, case: str, start: str) -> float:
    """Return the highest value of a case among those whose names start so."""
    return max(value for (c, name), value in values.items() if c == case and name.startswith(start))


def verdict(holds: bool) -> str:
    """Return how an aim is marked."""
    return "reached" if holds else "NOT REACHED"


def windows(values: Values, sizes: dict) -> list[str]:
    """Return lines on shuffled windows."""
    peer, lines = best(values, "state", "lerobot "), []
    for (_, name), value in values.items():
        if name.startswith("leray"):
            ratio = value / peer
            lines.append(f"{name:28} {value:10,.0f} windows/s, {ratio:7.1f} x the peer's best")
    ours = values["state", "leray batch=256"]
    lines.append(f"200,000 windows/s on one core: {verdict(ours >= 200_000)}")
    lines.append(f"20 x the peer: {verdict(ours >= 20 * peer)}")
    return lines


def random_access(values: Values, sizes: dict) -> list[str]:
    """Return lines on shuffled pictures, with the peer's best and ours with its conversion."""
    lines = []
    for case in dict.fromkeys(case for case, _ in values):
        peer = best(values, case, "lerobot ")
        lines.append(f"{case}: the peer's best {peer:.0f} samples/s")
        for (c, name), value in values.items():
            if c == case and name.startswith("leray"):
                ratio = value / peer
                mark = verdict(ratio >= 5)
                lines.append(f"  {name:26} {value:6.0f} samples/s, {ratio:5.1f} x (aim 5: {mark})")
    return lines


def sequential(values: Values, sizes: dict) -> list[str]:
    """Return lines on pictures in stored order, beside bare PyAV at its best and as written."""
    lines = []
    for case in dict.fromkeys(case for case, _ in values):
        ours, plain = values[case, "leray"], values[case, "pyav"]
        fastest = best(values, case, "pyav")
        lines.append(
            f"{case}: {ours:.0f} frames/s; {ours / plain:.0%} of bare PyAV as documented "
            f"(aim 70 %: {verdict(ours >= 0.7 * plain)}), {ours / fastest:.0%} of its best; "
            f"start-up {values[case, 'leray start-up']:.1f} s; "
            f"in process {values[case, 'leray in process']:.0f} frames/s"
        )
    return lines


def first_batch(values: Values, sizes: dict) -> list[str]:
    """Return lines on the time to the first batch."""
    rows = sizes["row_episodes"][0] * sizes["row_episodes"][1]
    return [
        f"{name:46} {value:6.2f} s for {rows:,} rows (aim 5 s: {verdict(value <= 5)})"
        for (_, name), value in values.items()
        if name.startswith("leray")
    ] + [f"{name:46} {value:6.2f} s" for (_, name), value in values.items() if "lerobot" in name]


def memory(values: Values, sizes: dict) -> list[str]:
    """Return lines on peaks and bounds."""
    lines, limit = [], sizes["limit_mb"]
    for case in ("h264", "av1"):
        pss, rss = values[case, "peak PSS"], values[case, "peak RSS"]
        lines.append(
            f"{case}: peak PSS {pss:.0f} MiB, RSS {rss:.0f} MiB, bound {limit} MiB: "
            f"{verdict(pss <= limit)}"
        )
    sampling = values["columns", "sampling: peak PSS"]
    grown = sampling - values["columns", "baseline: PSS before"]
    ingest = values["columns", "baseline: peak PSS"] - values["columns", "baseline: PSS before"]
    bound = sizes["numeric_limit_mb"]
    lines.append(
        f"columns: {grown:.0f} MiB more while sampling, {ingest:.0f} MiB more while they are laid "
        f"out, bound {bound} MiB: {verdict(grown <= bound)}"
    )
    return lines


LINES: dict[str, Callable[[Values, dict], list[str]]] = {
    "windows": windows,
    "random_access": random_access,
    "sequential": sequential,
    "first_batch": first_batch,
    "memory": memory,
}

if __name__ == "__main__":
    main()
