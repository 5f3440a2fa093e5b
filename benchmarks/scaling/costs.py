"""What one operation of a run costs: the numbers that the simulation is made of."""

import csv
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
INLINE_BYTES = 100 * 1024
"""Results of Ray calls below this size come with the reply, larger ones through object stores."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of the driver's one thread, unless said otherwise; all from `costs.csv`."""

    ask_runner_s: float = 0.0
    """Looking at one runner in one of the two passes of `_ask`."""
    ask_free_s: float = 0.0
    """The same for a runner that could take a request, on top: the pacing's arithmetic."""
    ask_pair_s: float = 0.0
    """Adding one runner's requests in flight; `_ask` does it for every pair of runners."""
    submit_s: float = 0.0
    """One call of `try_sample` sent."""
    wait_ref_s: float = 0.0
    """`ray.wait`, for each call in flight."""
    fetch_s: float = 0.0
    """Taking one fragment that came with the reply."""
    fetch_large_s: float = 0.0
    """Taking one fragment from the object store."""
    index_ref_s: float = 0.0
    """RLlib's search for the runner of a fragment, for each call in flight."""
    add_s: float = 0.0
    """Appending one fragment to the replay, while it fills for the first time."""
    add_byte_s: float = 0.0
    """The same, for each of its bytes."""
    publish_s: float = 0.0
    """Copying the acting weights and putting them into the object store."""
    publish_byte_s: float = 0.0
    """The same, for each byte of them."""
    iteration_s: float = 0.0
    """RLlib's work around a training step."""
    round_trip_s: float = 0.0
    """Latency of an empty call on one machine, there and back."""
    load_s: float = 0.0
    """A runner takes over the weights it was sent, with every call."""
    load_byte_s: float = 0.0
    """The same, for each byte of them."""


def read_values(path: Path = RESULTS / "costs.csv") -> dict[tuple[str, int], float]:
    """Return the medians of a table of `measure.py` by name and parameter."""
    with path.open() as file:
        return {
            (row["name"], int(row["parameter"])): float(row["median"])
            for row in csv.DictReader(file)
        }


def derive(values: dict[tuple[str, int], float]) -> Costs:
    """Return costs per unit: lines through the smallest and the largest measured size."""
    pair = values["ask_full", 3000] / (2 * 3000**2)  # two passes over 3000 runners
    free = (values["ask_free", 10] - values["ask_full", 10]) / (2 * 10)
    fetch, index = _line(values, "fetch_state")
    add, add_byte = _adding(values)
    publish, publish_byte = _line(values, "publish")
    load, load_byte = _line(values, "load")
    return Costs(
        ask_runner_s=max(0.0, values["ask_full", 10] / (2 * 10) - 10 * pair),
        ask_free_s=max(0.0, free),
        ask_pair_s=pair,
        submit_s=values["submit", 1],
        wait_ref_s=_line(values, "wait")[1],
        fetch_s=fetch,
        fetch_large_s=values["fetch_images", 4],
        index_ref_s=index,
        add_s=add,
        add_byte_s=add_byte,
        publish_s=publish,
        publish_byte_s=publish_byte,
        iteration_s=values["iteration", 0],
        round_trip_s=values["round_trip", 0],
        load_s=load,
        load_byte_s=load_byte,
    )


def _adding(values: dict[tuple[str, int], float]) -> tuple[float, float]:
    """Return what a fragment and each of its bytes cost while the replay is filled at first."""
    small, large = values["fragment_bytes", 1], values["fragment_bytes_images", 4]
    low, high = values["add_first", 1], values["add_images_first", 4]
    slope = (high - low) / (large - small)
    return max(0.0, low - slope * small), slope


def _line(values: dict[tuple[str, int], float], name: str) -> tuple[float, float]:
    """Return what the smallest measured size costs at zero, and each unit of size, neither < 0."""
    points = sorted((size, seconds) for (other, size), seconds in values.items() if other == name)
    (small, low), (large, high) = points[0], points[-1]
    slope = max(0.0, (high - low) / (large - small))
    return max(0.0, low - slope * small), slope
