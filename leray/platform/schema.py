"""The options of a config class: names, types, defaults and explanations, read from dataclasses."""

import ast
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union

from draccus.utils import is_choice_type

from leray.algorithms.config import PolicyConfig

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


@dataclass(frozen=True)
class Option:
    """One thing that can be set, on the command line or in a config file."""

    key: str
    """Dotted name without dashes, for example `policy.utd_ratio`."""
    type: Any
    default: Any
    """The default value, or `dataclasses.MISSING` when the option must be given."""
    help: str
    choice: tuple[str, str] | None = None
    """`("policy.type", "sac")` when the option exists only under that choice."""


def members(type_: Any) -> tuple[Any, ...]:
    """Return the members of a union type, or the type itself alone."""
    if typing.get_origin(type_) in (Union, types.UnionType):
        return typing.get_args(type_)
    return (type_,)


def accepts_null(type_: Any) -> bool:
    """Tell whether `null` is a value of this type."""
    return type(None) in members(type_) or type_ is Any


def is_mapping(type_: Any) -> bool:
    """Tell whether values of this type are mappings."""
    return any(dict in (member, typing.get_origin(member)) for member in members(type_))


def section_class(type_: Any) -> type | None:
    """Return the dataclass a field of this type nests (`X` of `X | None`), or None for a value."""
    real = [member for member in members(type_) if member is not type(None)]
    if len(real) == 1 and isinstance(real[0], type) and is_dataclass(real[0]):
        return real[0]
    return None


def choices(section: Any) -> Mapping[str, type]:
    """Return the registered subclasses of a choice class by name; empty for other classes."""
    if not is_choice_type(section):
        return {}
    return dict(sorted(section.get_known_choices().items()))


def describe(type_: Any) -> str:
    """Say in words what values a type has: `a whole number or null`."""
    words = [_describe_member(member) for member in members(type_) if member is not type(None)]
    if type(None) in members(type_):
        words.append("null")
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]


def _describe_member(type_: Any) -> str:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if origin is list:
        return "a list such as [1, 2]" if arguments[0] in (int, float) else "a list such as [a, b]"
    if origin is tuple:
        return f"a list of {len(arguments)} values"
    if origin is dict or type_ is dict:
        return "a mapping such as '{a: 1}'"
    return WORDS.get(type_, getattr(type_, "__name__", str(type_)))


def default_of(field: "Field[Any]") -> Any:
    """Return a field's default value, or `MISSING` when it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


@functools.cache
def field_types(config_class: type) -> Mapping[str, Any]:
    """Return the resolved type of each field of a dataclass."""
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in fields(config_class)}


@functools.cache
def field_help(config_class: type) -> Mapping[str, str]:
    """Return the string written below each field of a dataclass, on one line."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if not is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # defined where no source is kept
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for statement, below in itertools.pairwise(body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    found[name] = " ".join(text.split())
    return found


def options(config_class: type) -> Iterator[Option]:
    """Yield every option of a config class, those of all its choices included."""
    yield from _section(config_class, "", MISSING, None)


def join(prefix: str, name: str) -> str:
    """Return the dotted key of a name inside a section."""
    return f"{prefix}.{name}" if prefix else name


def _section(
    section: type, key: str, default: Any, choice: tuple[str, str] | None
) -> Iterator[Option]:
    known = choices(section)
    if not known:
        base = default if isinstance(default, section) else None
        yield from _fields(section, key, base, choice)
        return
    selector = join(key, "type")
    names = ", ".join(known)
    kind = MISSING if default is MISSING else getattr(default, "type", None)
    yield Option(selector, Literal[tuple(known)], kind, f"Which kind of {key}: {names}.", choice)
    if section is PolicyConfig and key:
        text = (
            "Start from this checkpoint folder, or policy `user/name` of the Hub, its options and "
            "weights; replaces `policy.type`."
        )
        yield Option(join(key, "path"), str | None, None, text, choice)
    yield from _fields(section, key, None, choice)
    common = {field.name for field in fields(section)}
    for name, subclass in known.items():
        for option in _fields(subclass, key, None, (selector, name)):
            if option.key.removeprefix(key).lstrip(".").split(".")[0] not in common:
                yield option


def _fields(section: type, key: str, base: Any, choice: tuple[str, str] | None) -> Iterator[Option]:
    kinds, helps = field_types(section), field_help(section)
    for field in fields(section):
        if not field.init:
            continue
        name = join(key, field.name)
        default = default_of(field) if base is None else getattr(base, field.name)
        nested = section_class(kinds[field.name])
        if nested is None:
            yield Option(name, kinds[field.name], default, helps.get(field.name, ""), choice)
        else:
            yield from _section(nested, name, default, choice)
