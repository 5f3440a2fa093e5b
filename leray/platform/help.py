"""The text of `leray <command> --help`: every option with its type, default and explanation."""

import inspect
import json
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from leray.algorithms.plugins import register_plugins
from leray.platform.schema import Option, describe, options

RUN_GROUP = "the run"
SYNTAX = (
    "Options are written --name=value or --name value; a switch alone means true. "
    "--config_path=FILE reads options from a YAML or JSON file; flags override it."
)


def help_text(config_class: type, argv: Sequence[str], *, command: str, about: str) -> str:
    """Return the help of a command, its options grouped by section.

    Args:
        config_class: The command's config dataclass.
        argv: The command's arguments; with `--policy.type=sac` among them, only sac's are shown.
        command: The command's name.
        about: One sentence that says what it does.
    """
    register_plugins()
    chosen = _chosen(argv)
    groups: dict[str, list[Option]] = {}
    for option in options(config_class):
        selector, name = option.choice or ("", "")
        if chosen.get(selector, name) != name:
            continue
        top = option.key.split(".")[0] if "." in option.key else RUN_GROUP
        title = f"--{top}.*, with --{selector}={name}" if selector else f"--{top}.*"
        groups.setdefault(RUN_GROUP if top == RUN_GROUP else title, []).append(option)
    lines = [
        *_wrap(f"usage: leray {command} [--config_path=FILE] [--option=value ...]", ""),
        "",
        *_wrap(f"{about} {SYNTAX}", ""),
    ]
    first = groups.pop(RUN_GROUP, [])
    for title, several in [(RUN_GROUP, first), *groups.items()]:
        if several:
            lines += ["", title, *(line for option in several for line in _describe(option))]
    return "\n".join(lines)


def _chosen(argv: Sequence[str]) -> dict[str, str]:
    """Return the kinds picked on the command line, by selector: `{"policy.type": "sac"}`."""
    chosen = {}
    for token, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = token.removeprefix("--").partition("=")
        if token.startswith("--") and name.endswith(".type"):
            chosen[name] = value if equals else following
    return chosen


def _describe(option: Option) -> list[str]:
    default = "required" if option.default is MISSING else f"default {_plain(option.default)}"
    head = f"  --{option.key}  ({describe(option.type)}; {default})"
    return [
        *textwrap.wrap(head, _width(), subsequent_indent="      "),
        *_wrap(option.help, "      "),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value) or "''"
    return json.dumps(value, default=str)


def _wrap(text: str, indent: str) -> list[str]:
    text = inspect.cleandoc(text)
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)
