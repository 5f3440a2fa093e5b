"""The language of search spaces: which keys of a training config vary, between what, and when."""

import difflib
import graphlib
import itertools
import json
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from leray.errors import ConfigError

GRID = "grid"
FIXED = "fixed"
LISTS = ("choice", GRID)
RANGES = ("uniform", "loguniform", "int", "logint")
KINDS = (*LISTS, *RANGES)
WHEN = "when"
VALUES = "values"
"""Where the config that Ray Tune gives a trial holds what the search chose, by dotted key."""
TRIES = 100
"""Draws for each configuration asked for, before a space is taken to have no other."""

Conditions = Mapping[str, tuple[Any, ...]]
Values = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """A domain of given values."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """Return the value below which this share of the domain lies, from 0 to below 1."""
        return self.values[int(share * len(self.values))]

    def extremes(self) -> tuple[Any, ...]:
        """Return the values that are worth trying: all of them."""
        return self.values

    def __contains__(self, value: object) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Range:
    """A domain of numbers between two, both ends possible."""

    low: float
    high: float
    is_log: bool = False
    """Spread evenly over the logarithm."""
    is_whole: bool = False
    """Whole numbers only."""

    def at(self, share: float) -> float:
        """Return the number below which this share of the domain lies, from 0 to below 1."""
        margin = 0.5 if self.is_whole else 0.0  # gives the ends as much room as numbers between
        low, high = self.low - margin, self.high + margin
        if self.is_log:
            return self.nearest(low * (high / low) ** share)
        return self.nearest(low + (high - low) * share)

    def nearest(self, number: float) -> float:
        """Return the number of the domain that is closest."""
        number = round(number) if self.is_whole else float(number)
        return min(max(number, self.low), self.high)

    def extremes(self) -> tuple[Any, ...]:
        """Return the values that are worth trying: both ends."""
        return (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.is_whole and value % 1)


@dataclass(frozen=True)
class Variable:
    """A key of the training config that a sweep varies."""

    key: str
    kind: str
    """One of `KINDS`, or `fixed`."""
    domain: Listed | Range
    when: Conditions
    """Other keys and the values of theirs under which this one varies."""

    @property
    def is_sampled(self) -> bool:
        """Whether its values are drawn, and not all tried."""
        return self.kind not in (GRID, FIXED)

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Tell whether it varies beside these values; one left out satisfies no condition."""
        return all(key in values and values[key] in allowed for key, allowed in self.when.items())


@dataclass(frozen=True)
class Space:
    """What a sweep varies; each variable stands behind those that its condition looks at."""

    variables: tuple[Variable, ...]

    def __getitem__(self, key: str) -> Variable:
        """Return the variable of a key of the space."""
        return next(variable for variable in self.variables if variable.key == key)

    @property
    def has_sampled(self) -> bool:
        """Whether any value is drawn."""
        return any(variable.is_sampled for variable in self.variables)

    def fill(self, choose: Callable[[Variable], Any]) -> Values:
        """Return the values of a trial, of active variables only.

        Args:
            choose: gives the value of a variable that is active.
        """
        values: Values = {}
        for variable in self.variables:
            if variable.is_active(values):
                values[variable.key] = choose(variable)
        return values

    def points(self) -> list[Values]:
        """Return every combination of the grids' values; one empty one where there is no grid.

        Of grids with conditions on each other, only what is active beside the others.
        """
        grids = {v.key: v for v in self.variables if v.kind == GRID}
        found: dict[str, Values] = {}
        for each in itertools.product(*(v.domain.extremes() for v in grids.values())):
            point: Values = {}
            for value, variable in zip(each, grids.values(), strict=True):
                among = {key: allowed for key, allowed in variable.when.items() if key in grids}
                if replace(variable, when=among).is_active(point):
                    point[variable.key] = value
            found[_text(point)] = point
        return list(found.values())

    def draw(self, seed: int, number: int, pinned: Mapping[str, Any]) -> Values:
        """Return a configuration, the same for the same arguments.

        What is drawn for a key depends on seed, number and key alone: at every point of a grid it
        is the same, and it stays the same where other keys join the space.

        Args:
            seed: of the search.
            number: of the draw.
            pinned: values that are not drawn.
        """

        def choose(variable: Variable) -> Any:
            if variable.key in pinned:
                return pinned[variable.key]
            return variable.domain.at(_share(seed, number, variable.key))

        return self.fill(choose)

    def sample(self, count: int, seed: int) -> list[Values]:
        """Return the configurations of a sweep: every point of the grid, `count` times drawn.

        None is returned twice: a grid alone gives each of its points once, and a space of few
        values may give fewer configurations than asked for.
        """
        found: dict[str, Values] = {}
        rounds = 0
        for number in range(TRIES * count if self.has_sampled else 1):
            drawn = [self.draw(seed, number, point) for point in self.points()]
            new = {text: each for each in drawn if (text := _text(each)) not in found}
            found |= new
            rounds += bool(new)
            if rounds == count:
                break
        return list(found.values())

    def activating(self, key: str) -> Values:
        """Return values of other keys under which a key varies.

        Raises:
            ConfigError: there are none.
        """
        others = self._ancestors(key)
        allowed = [
            [value for when in self._conditions_on(other, {key, *others}) for value in when]
            for other in others
        ]
        for each in itertools.product(*allowed):
            pinned = dict(zip(others, each, strict=True))
            if all(v in self[k].domain for k, v in pinned.items()) and key in self.draw(
                0, 0, pinned
            ):
                return pinned
        raise ConfigError(
            f"--space.{key}: its condition {_shown(self[key].when)} never holds; give values that "
            f"{', '.join(self[key].when)} can take"
        )

    def _ancestors(self, key: str) -> list[str]:
        """Return the keys that decide, directly or not, whether a key varies."""
        found: list[str] = []
        for other in self[key].when:
            found += [k for k in (other, *self._ancestors(other)) if k not in found]
        return found

    def _conditions_on(self, key: str, among: Collection[str]) -> Iterator[tuple[Any, ...]]:
        return (self[k].when[key] for k in among if key in self[k].when)


def parse_space(
    tree: Mapping[str, Any], leaves: Collection[str], base: Callable[[str], Any]
) -> Space:
    """Read a search space.

    Args:
        tree: domains by the keys that vary, dotted or nested. Of two of the same key the later
            counts.
        leaves: keys that are options of one value, so that a mapping below them is a domain.
        base: gives the value of a key that the space does not hold.

    Raises:
        ConfigError: a domain or a condition is none, or conditions go round in a circle.
    """
    variables = {key: _variable(key, node) for key, node in _flatten(tree, leaves)}
    space = Space(_ordered(_settled(variables, base)))
    for variable in space.variables:
        space.activating(variable.key)
    return space


def _flatten(
    tree: Mapping[str, Any], leaves: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, node in tree.items():
        key = f"{prefix}{name}"
        if isinstance(node, Mapping) and key not in leaves and not _is_domain(node):
            yield from _flatten(node, leaves, f"{key}.")
        else:
            yield key, node


def _is_domain(node: Mapping[str, Any]) -> bool:
    return not node or not node.keys().isdisjoint((*KINDS, WHEN))


def _variable(key: str, node: Any) -> Variable:
    if not isinstance(node, Mapping):
        return Variable(key, FIXED, Listed((node,)), {})
    for name in node:
        if name not in (*KINDS, WHEN):
            near = difflib.get_close_matches(str(name), KINDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"--space.{key}: {name}: unknown domain; allowed are {', '.join(KINDS)}{hint}"
            )
    kinds = [name for name in node if name in KINDS]
    if len(kinds) != 1:
        raise ConfigError(
            f"--space.{key}={_text(node)}: give exactly one domain of {', '.join(KINDS)}, "
            "or a plain value"
        )
    domain = (_listed if kinds[0] in LISTS else _range)(key, kinds[0], node[kinds[0]])
    return Variable(key, kinds[0], domain, _conditions(key, node.get(WHEN, {})))


def _listed(key: str, kind: str, content: Any) -> Listed:
    if not isinstance(content, list | tuple) or not content:
        raise ConfigError(f"--space.{key}: {kind}={_text(content)}: give a list of values")
    texts = [_text(value) for value in content]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ConfigError(f"--space.{key}: {kind}={_text(content)}: has {twice} twice")
    return Listed(tuple(content))


def _range(key: str, kind: str, content: Any) -> Range:
    is_whole, is_log = kind.endswith("int"), kind.startswith("log")
    label = f"--space.{key}: {kind}={_text(content)}"
    numbers = "whole numbers" if is_whole else "numbers"
    ends = content if isinstance(content, list | tuple) else ()
    if len(ends) != 2 or not all(_is_number(end, is_whole=is_whole) for end in ends):
        raise ConfigError(f"{label}: give two {numbers}, [low, high]")
    low, high = (int(end) if is_whole else float(end) for end in ends)
    if low >= high:
        raise ConfigError(f"{label}: low must be below high; for one value give it plainly")
    if is_log and low <= 0:
        raise ConfigError(f"{label}: both must be above 0 where the logarithm counts")
    return Range(low, high, is_log=is_log, is_whole=is_whole)


def _is_number(value: Any, *, is_whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return not is_whole or value % 1 == 0


def _conditions(key: str, content: Any) -> Conditions:
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"--space.{key}: when={_text(content)}: give keys and values, {{policy.type: sac}}"
        )
    conditions = {}
    for other, allowed in _flatten(content, ()):
        values = tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,)
        if not values:
            raise ConfigError(f"--space.{key}: when {other}=[]: give a value or a list of some")
        conditions[other] = values
    return conditions


def _settled(variables: Mapping[str, Variable], base: Callable[[str], Any]) -> dict[str, Variable]:
    """Decide the conditions on keys outside of the space; what never varies is left out."""

    def fails(variable: Variable) -> bool:
        return any(
            other not in kept and (other in variables or base(other) not in allowed)
            for other, allowed in variable.when.items()
        )

    kept = dict(variables)
    while out := [key for key, variable in kept.items() if fails(variable)]:
        for key in out:
            del kept[key]
    return {
        key: replace(variable, when={k: v for k, v in variable.when.items() if k in kept})
        for key, variable in kept.items()
    }


def _ordered(variables: Mapping[str, Variable]) -> tuple[Variable, ...]:
    """Put each variable behind those that its condition looks at."""
    sorter = graphlib.TopologicalSorter({key: list(v.when) for key, v in variables.items()})
    try:
        return tuple(variables[key] for key in sorter.static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"--space: conditions go round in a circle, {circle}: drop one of them"
        ) from error


def _share(seed: int, number: int, key: str) -> float:
    """Return a random number from 0 to below 1."""
    return random.Random(f"{seed}/{number}/{key}").random()


def _shown(conditions: Conditions) -> str:
    return ", ".join(f"{key}={' or '.join(map(str, v))}" for key, v in conditions.items())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
