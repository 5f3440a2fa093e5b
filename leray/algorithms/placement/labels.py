"""Node labels and what selects them, in Ray's notation; pure text, no Ray."""

import re
from collections.abc import Mapping

from leray.algorithms.config import require

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))")
_KEY = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_WORD}")


def check_selector(selector: Mapping[str, str], where: str) -> None:
    """Refuse what Ray would not take as a label selector.

    Args:
        selector: wanted value by label.
        where: how the option is called in an error.

    Raises:
        ConfigError: a label or a value is not written as Ray wants it.
    """
    require(isinstance(selector, Mapping), f"{where}={selector}: give a mapping like {{role: sim}}")
    for key, value in selector.items():
        require(
            isinstance(key, str) and _KEY.fullmatch(key) is not None,
            f"{where}: {key!r} is no label: give letters, digits, -, _ and .",
        )
        require(
            isinstance(value, str) and _SELECTOR.fullmatch(value) is not None,
            f"{where}: {key}={value!r}: give text: a value, '!value', 'in(a, b)' or '!in(a, b)'",
        )


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether a node with these labels is one that a selector means."""
    return all(_holds(value, labels.get(key)) for key, value in selector.items())


def _holds(wanted: str, label: str | None) -> bool:
    negated, values = wanted.startswith("!"), wanted.removeprefix("!")
    if values.startswith("in("):
        values = values.removeprefix("in(").removesuffix(")")
    return (label in re.split(", ?", values)) is not negated
