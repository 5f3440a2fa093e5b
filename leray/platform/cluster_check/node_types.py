"""The kinds of nodes a launch file can bring up, and whether a training run fits on them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from leray.algorithms.placement.labels import selects
from leray.platform.cluster_check.demands import Demand, demands_of, wants_gpu_in_head
from leray.platform.cluster_check.findings import Findings
from leray.platform.config import TrainConfig


@dataclass(frozen=True)
class NodeType:
    """One kind of node."""

    name: str
    most: int | None
    """How many workers of it there can be, the head not counted; None where that is not known."""
    resources: Mapping[str, float]
    """What each offers: `{"CPU": 8, "GPU": 1, "robot": 1}`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    is_head: bool = False
    detects: bool = False
    """Whether CPUs and GPUs that are not named are found when the node starts."""

    def offers(self, resource: str) -> float:
        """Return how much of a resource each node has; infinite where only the node knows."""
        if self.detects and resource in ("CPU", "GPU"):
            return self.resources.get(resource, math.inf)
        return self.resources.get(resource, 0)

    def takes(self, demand: Demand) -> bool:
        """Tell whether one actor of a demand fits on an empty node."""
        fits = all(self.offers(name) >= amount for name, amount in demand.resources.items())
        return fits and selects(demand.labels, self.labels)


@dataclass(frozen=True)
class Fleet:
    """All nodes of a cluster."""

    types: list[NodeType]
    most_workers: int | None
    """How many workers there can be, of all types together; None for as many as the types allow."""
    line: int
    """Where the types of nodes are listed."""

    def total(self, resource: str) -> float:
        """Return how much of a resource the grown cluster has at most."""
        head = sum(each.offers(resource) for each in self.types if each.is_head)
        amounts: list[float] = []
        for each in self.types:
            if not each.offers(resource) or each.most == 0:
                continue
            if each.most is None:
                return math.inf
            amounts += [each.offers(resource)] * each.most
        return head + sum(sorted(amounts, reverse=True)[: self.most_workers])


def check_training(config: TrainConfig, fleet: Fleet, findings: Findings, *, source: str) -> None:
    """Check that a training run fits on a cluster.

    Args:
        config: the run.
        fleet: the cluster, grown as far as it may.
        findings: what is lacking is added.
        source: what asks, for the messages.
    """
    _check_fit(fleet, demands_of(config), findings, source=source)
    head = next((each for each in fleet.types if each.is_head), None)
    if wants_gpu_in_head(config) and head is not None and not head.offers("GPU"):
        findings.error(
            fleet.line,
            f"{source}: policy.device={config.policy.device} and learners.num_learners=0 learn in "
            "the training process, on the head, which has no GPU; give --learners.num_learners=1",
        )


def _check_fit(fleet: Fleet, demands: list[Demand], findings: Findings, *, source: str) -> None:
    """Check that each actor finds a node, and that all of them together do."""
    homeless = set()
    for demand in demands:
        if not any(each.takes(demand) for each in fleet.types):
            homeless.add(demand.name)
            findings.error(fleet.line, f"{source}: {_homeless(demand, fleet)}")
    wanted: dict[str, float] = {}
    for demand in demands:
        if demand.name not in homeless:
            for name, amount in demand.resources.items():
                wanted[name] = wanted.get(name, 0) + demand.count * amount
    for name, amount in wanted.items():
        total = fleet.total(name)
        if amount > total:
            findings.error(
                fleet.line,
                f"{source} asks for {amount:g} {name}, all nodes together have {total:g}; allow "
                "more workers, or ask for less",
            )


def _homeless(demand: Demand, fleet: Fleet) -> str:
    """Say why no type of node can take an actor of a demand."""
    for name, amount in demand.resources.items():
        largest = max((each.offers(name) for each in fleet.types), default=0)
        if amount > largest:
            has = f"the largest node has {largest:g}" if largest else "no type of node has any"
            return f"{demand} each, {has}; add {name} to the resources of a node type"
    if not any(selects(demand.labels, each.labels) for each in fleet.types):
        return f"{demand}; no type of node has these labels; add them to one"
    return f"{demand} each on one node, and no type of node has all of it; add a type that has"
