"""What a part of a run asks the cluster for, and waiting until its nodes have it."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from leray.algorithms.placement.labels import selects
from leray.errors import ConfigError

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a node may take to join before its lack is an error."""
BUSY_AFTER_S = 60.0
"""How long a part may take to start before it is said that it waits."""
LOOK_EVERY_S = 1.0
"""How often nodes are looked at while a part of the run waits for one."""
LAUNCHED = "ray.io/node-group"
"""Label that cluster launchers, KubeRay and autoscalers give to the nodes they start."""
MOST_LISTED = 8
"""Nodes that an error lists."""
_met: set[str] = set()
"""What was found once in this process: a node that is missing now may come back."""


@dataclass(frozen=True)
class Ask:
    """What a part of a run asks for: room for `count` processes that are alike."""

    name: str
    """How messages call it."""
    count: int
    """Processes."""
    resources: Mapping[str, float]
    """Ray resources of each."""
    labels: Mapping[str, str]
    """Selects the nodes that it may run on."""

    def __str__(self) -> str:
        where = f" on nodes with labels {_listed(self.labels)}" if self.labels else ""
        each = f"{self.count} x " if self.count > 1 else ""
        return f"{each}{_listed(self.resources)}{where}"

    def room(self, nodes: list[dict[str, Any]]) -> float:
        """Return how many of its processes the nodes could take if they were idle."""
        return sum(
            min(
                (node["Resources"].get(name, 0) // need for name, need in self.resources.items()),
                default=math.inf,
            )
            for node in nodes
            if node["Alive"] and selects(self.labels, node["Labels"])
        )


def wait_until_placed(asks: list[Ask], pending: Callable[[float], list[Ask]]) -> None:
    """Wait until all parts of a run have found a node, and say so where that takes long.

    Args:
        asks: those that are to be placed.
        pending: waits up to some seconds and returns those that have not started yet.

    Raises:
        ConfigError: the cluster has no node for one of them, and nothing that might bring one.
    """
    began_s = time.monotonic()
    told: set[str] = set()
    while missing := pending(LOOK_EVERY_S):
        waited_s, nodes = time.monotonic() - began_s, ray.nodes()
        for ask in missing:
            if ask.room(nodes) >= ask.count:
                late_s, reason = BUSY_AFTER_S, "the nodes that offer it are busy"
            else:
                late_s, reason = PATIENCE_S, _reason_to_wait(ask, nodes, waited_s)
            if waited_s > late_s and ask.name not in told:
                logger.warning("%s: waiting for %s: %s", ask.name, ask, reason)
                told.add(ask.name)
    _met.update(str(ask) for ask in asks)
    if told:
        waited_s = time.monotonic() - began_s
        logger.warning("%s: found room after %.0f s", ", ".join(sorted(told)), waited_s)


def _reason_to_wait(ask: Ask, nodes: list[dict[str, Any]], waited_s: float) -> str:
    """Say why a node that is not there may come.

    Raises:
        ConfigError: there is no such reason, and enough time has gone by.
    """
    alive = [node for node in nodes if node["Alive"]]
    if any(LAUNCHED in node["Labels"] for node in alive):
        return "no node offers it yet, the cluster's autoscaler may bring one"
    if str(ask) in _met:
        return "the node that offered it is gone, the run goes on when it is back"
    if waited_s > PATIENCE_S:
        offers = [_offer(node) for node in alive[:MOST_LISTED]]
        if len(alive) > MOST_LISTED:
            offers.append(f"{len(alive) - MOST_LISTED} more")
        found = ask.room(nodes)
        lack = f"there is room for {found:.0f}" if found else "no node has it"
        raise ConfigError(
            f"{ask.name}: asks for {ask} and {lack}; nodes offer {', '.join(offers)}: start a node "
            "with `ray start --address=... --resources=... --labels=...`, or ask for less"
        )
    return ""


def _offer(node: Mapping[str, Any]) -> str:
    hidden = ("memory", "object_store_memory")
    resources = {
        name: amount
        for name, amount in sorted(node["Resources"].items())
        if name not in hidden and not name.startswith("node:")
    }
    labels = {k: v for k, v in node["Labels"].items() if not k.startswith("ray.io/")}
    return f"{_listed(resources)}" + (f" with labels {_listed(labels)}" if labels else "")


def _listed(values: Mapping[str, Any]) -> str:
    """Write a mapping the way it stands in a config."""
    pairs = values.items()
    words = (f"{key}: {v:g}" if isinstance(v, int | float) else f"{key}: {v}" for key, v in pairs)
    return "{" + ", ".join(words) + "}"
