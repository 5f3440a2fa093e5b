"""Groups of env runners: how many there are, and what each needs; plain data, no Ray."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leray.algorithms.config import require
from leray.algorithms.placement.labels import check_selector

OPTION = "--runners.groups"


@dataclass(frozen=True, kw_only=True)
class RunnerGroup:
    """Env runners that are alike: simulators on machines of one kind, or one robot."""

    name: str
    """What messages call it."""
    num_env_runners: int = 1
    """Ray actors in this group."""
    num_envs_per_env_runner: int = 1
    """Environments stepped together in each."""
    num_cpus: float = 1.0
    """Ray CPUs reserved for each."""
    num_gpus: float = 0.0
    """Ray GPUs reserved for each."""
    resources: dict[str, float] = field(default_factory=dict)
    """Further Ray resources reserved for each."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the nodes it may run on, in Ray's notation."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, beside or instead of the run's own."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        where = f"{OPTION}: {self.name}"
        require(isinstance(self.name, str) and bool(self.name), f"{OPTION}: give a name as text")
        for name in ("num_env_runners", "num_envs_per_env_runner"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(whole and value >= 1, f"{where}: {name}={value}: give a whole number >= 1")
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            require(_is_amount(value), f"{where}: {name}={value}: give a number >= 0")
        check_resources(self.resources, f"{where}: resources")
        check_selector(self.labels, f"{where}: labels")
        require(
            isinstance(self.env_kwargs, Mapping),
            f"{where}: env_kwargs={self.env_kwargs}: give a mapping of keyword arguments",
        )

    @property
    def needs(self) -> dict[str, float]:
        """Ray resources of each runner, CPUs and GPUs among them."""
        needs = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: amount for name, amount in needs.items() if amount}


def read_groups(entries: Sequence[Mapping[str, Any]], defaults: RunnerGroup) -> list[RunnerGroup]:
    """Read groups as they stand in a config.

    Args:
        entries: one mapping per group.
        defaults: stands in for what an entry does not say.

    Raises:
        ConfigError: an entry says what no group knows, has no name, or is out of range.
    """
    groups = [_read(entry, defaults) for entry in entries]
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"{OPTION}: two groups are called {', '.join(twice)}: give each a name")
    return groups


def check_resources(resources: Mapping[str, float], where: str) -> None:
    """Refuse what is no mapping of Ray's custom resources.

    Args:
        resources: amount by name.
        where: how the option is called in an error.

    Raises:
        ConfigError: a name or an amount is none.
    """
    require(
        isinstance(resources, Mapping), f"{where}={resources}: give a mapping such as {{robot: 1}}"
    )
    for name, amount in resources.items():
        require(name not in ("CPU", "GPU"), f"{where}: {name} has an option of its own, num_...")
        require(
            isinstance(name, str) and _is_amount(amount) and amount > 0,
            f"{where}: {name}={amount}: give a number > 0",
        )


def _read(entry: Mapping[str, Any], defaults: RunnerGroup) -> RunnerGroup:
    known = [each.name for each in dataclasses.fields(RunnerGroup)]
    for key in entry:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        require(key in known, f"{OPTION}: {key}: unknown; {hint}A group has {', '.join(known)}")
    require("name" in entry, f"{OPTION}: {dict(entry)}: give the group a name, such as name: sims")
    return dataclasses.replace(defaults, **entry)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
