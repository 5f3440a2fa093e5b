"""Simulates runs with 1 to 1,000 runner nodes and writes `scaling.csv`, `failures.csv`, a plot.

    python -m benchmarks.scaling.scenarios

Each case is simulated as LeRay works today, and then with changes that build on each other.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from benchmarks.scaling.costs import RESULTS, derive, read_values
from benchmarks.scaling.simulate import Case, Cluster, Result, Simulation

NODES = (1, 10, 100, 1000)
DRIVER = ("ask", "fetch", "add", "update", "publish", "iteration")
"""What the driver's time goes to."""
PANELS = ("simulators, ratio 0.001", "cameras, ratio 0.0001", "robots at 20 Hz, ratio 1")
ASSUMED_IMAGE_UPDATE_S = 0.1
"""There is no off-policy learner of pictures to measure: ten updates a second are assumed."""
ASSUMED_LATENCY_S = 0.0005
"""Of a call between two nodes beyond that on one machine, there and back."""
ASSUMED_FAILURES_PER_NODE_H = 1 / 24
ASSUMED_RESTART_S = 10.0
"""Until runners of a lost node answer again where another has room for them."""
ASSUMED_REPLACEMENT_S = 180.0
"""The same where a new node has to come first."""


@dataclass(frozen=True)
class Change:
    """Something that might be built or set otherwise."""

    name: str
    case: dict[str, float] = field(default_factory=dict)
    cluster: dict[str, float] = field(default_factory=dict)
    shards: int = 1
    """Drivers, each with its share of the nodes, a replay, a learner and a network card of its own;
    what it costs them to keep their weights equal is left out."""


COUNTED = Change("counts instead of lists", cluster={"counted": True})
LONGER = Change("fragments of 64", case={"fragment": 64})
INGEST = Change("8 ingest actors", cluster={"ingest_actors": 8})
SELDOM = Change("weights once a second", cluster={"publish_period_s": 1.0})
TREE = Change("weights from node to node", cluster={"tree": True})
FAST_NETWORK = Change("100 Gbit/s", cluster={"nic_gbit_s": 100.0})
SLOW_NETWORK = Change("10 Gbit/s", cluster={"nic_gbit_s": 10.0})
SHARDS = Change("10 drivers", shards=10)
ONE_PER_NODE = Change(
    "one runner per node", case={"runners_per_node": 1, "envs": 128, "parallel_envs": 16}
)


@dataclass(frozen=True)
class Scenario:
    """A case and what is changed, one after the other."""

    name: str
    case: Case
    changes: list[Change] = field(default_factory=list)


def scenarios(values: dict[tuple[str, int], float], updates_per_s: float) -> list[Scenario]:
    """Return what is simulated.

    Args:
        values: what `measure.py` wrote.
        updates_per_s: of SAC on an idle machine with two threads, from `benchmarks/speed`.
    """
    state_bytes = values["fragment_bytes", 8] / (16 * 8)
    image_bytes = values["fragment_bytes_images", 4] / (16 * 4)
    sac, resnet = sorted(size for name, size in values if name == "publish")
    sims = Case(
        step_s=values["step_panda", 8],
        step_bytes=state_bytes,
        block_bytes=sac,
        update_s=1 / updates_per_s,
    )
    images = replace(
        sims,
        step_s=values["step_panda_images", 4],
        step_bytes=image_bytes,
        block_bytes=resnet,
        update_s=ASSUMED_IMAGE_UPDATE_S,
        utd_ratio=0.0001,
        envs=4,
    )
    faster = Change("learner 10 times as fast", case={"update_s": sims.update_s / 10})
    faster_images = Change("learner 10 times as fast", case={"update_s": images.update_s / 10})
    robots = replace(sims, step_s=0.05, runners_per_node=1, envs=1)
    return [
        Scenario("simulators, ratio 1", sims, [COUNTED, faster]),
        Scenario(
            "simulators, ratio 0.001",
            replace(sims, utd_ratio=0.001),
            [COUNTED, LONGER, SELDOM, INGEST, ONE_PER_NODE, SHARDS],
        ),
        Scenario(
            "cameras, ratio 0.0001",
            images,
            [COUNTED, TREE, SELDOM, INGEST, FAST_NETWORK, SHARDS],
        ),
        Scenario("cameras, 10 Gbit/s", images, [SLOW_NETWORK]),
        Scenario("robots at 20 Hz, ratio 1", robots, [COUNTED, faster]),
        Scenario("robots at 20 Hz, ratio 0.01", replace(robots, utd_ratio=0.01), [COUNTED, LONGER]),
        Scenario(
            "robots with cameras, ratio 0.01",
            replace(images, step_s=0.05, runners_per_node=1, envs=1, utd_ratio=0.01),
            [COUNTED, faster_images, SELDOM, TREE],
        ),
    ]


def main() -> None:
    """Simulate everything and write tables and plot."""
    values = read_values()
    rows = []
    for scenario in scenarios(values, idle_updates_per_s()):
        for name, case, cluster, shards in steps(scenario):
            for nodes in NODES:
                if nodes < shards:
                    continue
                size = replace(cluster, nodes=nodes // shards)
                result = Simulation(case, size, derive(values)).run(20.0, loops=15)
                rows.append(row(scenario.name, name, nodes, case, shards, result))
                print(*rows[-1].values(), sep=",", flush=True)
    write_rows(rows, "scaling")
    write_rows(failures(), "failures")
    draw(rows)


def idle_updates_per_s() -> float:
    """Return the updates of SAC per second on an idle machine with two threads."""
    path = RESULTS.parent.parent / "speed" / "results" / "speed.csv"
    with path.open() as file:
        rows = {(row["measurement"], row["library"]): row["median"] for row in csv.DictReader(file)}
    return float(rows["learner", "leray"])


def steps(scenario: Scenario) -> Iterator[tuple[str, Case, Cluster, int]]:
    """Yield the case as it is, then with one more change each time."""
    case, cluster = scenario.case, Cluster(nodes=1, latency_s=ASSUMED_LATENCY_S)
    yield "as it is", case, cluster, 1
    for change in scenario.changes:
        case, cluster = replace(case, **change.case), replace(cluster, **change.cluster)
        yield change.name, case, cluster, change.shards


def row(
    name: str, change: str, nodes: int, case: Case, shards: int, result: Result
) -> dict[str, str | int]:
    """Return one line of the table."""
    potential = nodes * case.runners_per_node * case.parallel_envs / case.step_s
    figures = {
        "runners_could": potential,
        "env_steps_per_s": shards * result.env_steps_per_s,
        "updates_per_s": shards * result.updates_per_s,
        "runners_busy": result.runner_busy,
        "driver_busy": 1 - result.shares.get("idle", 0.0),
        **{what: result.shares.get(what, 0.0) for what in DRIVER},
        "in_gbit_s": result.in_gbit_s,
        "out_gbit_s": result.out_gbit_s,
        "staleness_s": result.staleness_s,
        "staleness_updates": result.staleness_updates,
        "ahead_steps": shards * result.ahead_steps,
        "waiting_mb": result.store_bytes / 1e6,
    }
    line: dict[str, str | int] = {"case": name, "change": change, "nodes": nodes}
    return line | {key: f"{value:.4g}" for key, value in figures.items()}


def failures() -> list[dict[str, str | int]]:
    """Return how much of the time some runner is away, and the driver stands still to ask for it.

    Failures come at random: as in a queue with room for all, at least one runner is away for a
    share 1 - exp(-rate * time) of the time.
    """
    rows: list[dict[str, str | int]] = []
    asking = Cluster.probe_timeout_s / Cluster.probe_every_s
    for seconds in (ASSUMED_RESTART_S, ASSUMED_REPLACEMENT_S):
        for nodes in NODES:
            per_h = nodes * ASSUMED_FAILURES_PER_NODE_H
            away = 1 - math.exp(-per_h / 3600 * seconds)
            figures = {"failures_per_h": per_h, "someone_away": away, "standing": asking * away}
            line: dict[str, str | int] = {"away_s": f"{seconds:g}", "nodes": nodes}
            rows.append(line | {key: f"{value:.4g}" for key, value in figures.items()})
    return rows


def write_rows(rows: list[dict[str, str | int]], name: str) -> None:
    """Write a table."""
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, str | int]]) -> None:
    """Draw environment steps per second over nodes, one panel per case."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 4))
    for panel, name in zip(axes, PANELS, strict=True):
        lines = [row for row in rows if row["case"] == name]
        first = [row for row in lines if row["change"] == "as it is"]
        nodes = [row["nodes"] for row in first]
        could = [float(row["runners_could"]) for row in first]
        panel.plot(nodes, could, "k:", label="what runners could")
        for change in dict.fromkeys(row["change"] for row in lines):
            curve = [row for row in lines if row["change"] == change]
            label = change if change == "as it is" else f"+ {change}"
            rates = [float(row["env_steps_per_s"]) for row in curve]
            panel.plot([row["nodes"] for row in curve], rates, marker="o", label=label)
        panel.set(xscale="log", yscale="log", xlabel="runner nodes", title=name)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    axes[0].set_ylabel("environment steps/s, simulated")
    figure.savefig(RESULTS / "scaling.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
