"""The `ray start` commands inside shell lines of launch files."""

import json
import shlex
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings

_SIGNS = ";&|()"
"""Between commands. Anything else is a word of one."""


@dataclass(frozen=True)
class RayStart:
    """One `ray start` with its options."""

    entry: Entry
    """The shell line it stands in."""
    options: dict[str, str]
    """`{"num-cpus": "4"}`; a switch has an empty value."""

    def line_of(self, name: str) -> int:
        """Return the line of an option."""
        value = self.options.get(name, "")
        return self.entry.line_of(f"--{name}={value}", value or f"--{name}", f"--{name}")

    def resources(self, findings: Findings | None = None) -> dict[str, float]:
        """Return the resources of `--resources`; those that cannot be read are findings."""
        text = self.options.get("resources", "")
        if not text:
            return {}
        found = read_resources(text)
        if isinstance(found, str):
            if findings is not None:
                findings.error(
                    self.line_of("resources"),
                    f"--resources={text}: {found}; write --resources='{{\"robot\": 1}}'",
                )
            return {}
        return found

    def labels(self) -> dict[str, str]:
        """Return the labels of `--labels=name=value,name=value`."""
        pairs = self.options.get("labels", "").split(",")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def ray_starts(entry: Entry, findings: Findings | None = None) -> list[RayStart]:
    """Return the `ray start` commands of a shell line; quotes that do not close are a finding."""
    try:
        words = _words(entry.text)
    except ValueError as error:
        if findings is not None:
            findings.error(
                entry, f"the shell cannot read this command ({error}); close every quote"
            )
        return []
    found = []
    for number, word in enumerate(words[:-1]):
        if (word == "ray" or word.endswith("/ray")) and words[number + 1] == "start":
            found.append(RayStart(entry, _options(words[number + 2 :])))
    return found


def read_resources(text: str) -> dict[str, float] | str:
    """Return resources written as JSON, or what is wrong with them."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return "is not JSON"
    if not isinstance(value, dict):
        return "is not a JSON object"
    for name, amount in value.items():
        if name in ("CPU", "GPU", "memory"):
            option = {"CPU": "num-cpus", "GPU": "num-gpus"}.get(name, name)
            return f"{name} is not a custom resource, it has its own option {option}"
        if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            return f"the amount of {name} is not a number >= 0"
    return value


def command_words(text: str) -> list[str]:
    """Return the words of a shell line; where quotes do not close, what lies between spaces."""
    try:
        return _words(text)
    except ValueError:
        return text.split()


def pip_arguments(text: str) -> list[list[str]]:
    """Return the arguments of each `pip install` in a shell line."""
    words = command_words(text)
    return [
        list(takewhile(lambda word: not set(word) <= set(_SIGNS), words[number + 1 :]))
        for number, word in enumerate(words)
        if word == "install" and number and words[number - 1].rpartition("/")[2].startswith("pip")
    ]


def _words(text: str) -> list[str]:
    """Split shell text into words, with the signs between commands as words of their own."""
    one_line = text.replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(one_line, posix=True, punctuation_chars=_SIGNS)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _options(words: list[str]) -> dict[str, str]:
    """Return the options that follow `ray start`, up to the end of that command."""
    options: dict[str, str] = {}
    name = None
    for word in words:
        if set(word) <= set(_SIGNS):
            break
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            options[name] = value
            name = None if equals else name
        elif name is not None:
            options[name] = word
            name = None
    return options
