"""From given values (command-line text or file content) to a config object, or one clear error."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import draccus
import yaml

from leray.errors import ConfigError
from leray.platform.schema import (
    accepts_null,
    choices,
    default_of,
    describe,
    field_help,
    field_types,
    join,
    members,
    section_class,
)

T = TypeVar("T")
NULL_WORDS = ("null", "None", "none")


class ConfigLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number, as in YAML 1.2; plain YAML 1.1 makes it text."""


ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Given:
    """A value someone gave, and where."""

    value: Any
    """Text from the command line, or a value of any type from a file."""
    file: Path | None = None
    """The file it stands in; None for the command line."""

    def label(self, key: str) -> str:
        """Name the option and its value the way they were written."""
        if self.file is None:
            return f"--{key}={self.value}"
        return f"{self.file}: {key}={'null' if self.value is None else self.value}"

    def plain(self) -> Any:
        """Return the value with command-line text read as YAML.

        Raises:
            yaml.YAMLError: the text is not YAML.
        """
        if self.file is None and isinstance(self.value, str):
            return yaml.load(self.value, ConfigLoader)
        return self.value


def unknown_choice(label: str, value: object, allowed: list[str]) -> ConfigError:
    """Build the error for a value outside a closed set."""
    near = difflib.get_close_matches(str(value), allowed, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigError(f"{label}: unknown; allowed are {', '.join(allowed)}{hint}")


def decode_value(key: str, given: Given, type_: Any) -> Any:
    """Turn one given value into the wanted type.

    Raises:
        ConfigError: it cannot be read as that type.
    """
    label = given.label(key)
    wrong = ConfigError(f"{label}: wanted {describe(type_)}")
    type_ = _narrowed(type_, given)
    texts = [member for member in members(type_) if member in (str, Path)]
    if given.file is None and texts and isinstance(given.value, str):
        null = accepts_null(type_) and given.value in NULL_WORDS
        path = texts[0] is Path  # shells leave the ~ of --name=~/folder alone
        return None if null else Path(given.value).expanduser() if path else given.value
    try:
        value = given.plain()
    except yaml.YAMLError as error:
        raise wrong from error
    if value is None:
        if accepts_null(type_):
            return None
        raise wrong
    literals = [m for member in members(type_) for m in _literals(member)]
    if literals:
        if value in literals:
            return value
        allowed = [*literals, "null"] if accepts_null(type_) else literals
        raise unknown_choice(label, value, [str(each) for each in allowed])
    try:
        return draccus.decode(type_, _conform(value, type_))
    except Exception as error:  # draccus raises bare Exception among others
        raise wrong from error


def _narrowed(type_: Any, given: Given) -> Any:
    """Return the list of `text or a list` where one is given, which would pass for text too."""
    lists = [member for member in members(type_) if get_origin(member) is list]
    written = given.file is None and str(given.value).startswith("[")
    if str in members(type_) and lists and (written or isinstance(given.value, list)):
        return lists[0]
    return type_


def _literals(type_: Any) -> tuple[Any, ...]:
    return get_args(type_) if get_origin(type_) is Literal else ()


def _conform(value: Any, type_: Any) -> Any:
    """Refuse what draccus would quietly convert, and let `1e6` be a whole number."""
    allowed = members(type_)
    if isinstance(value, bool) and bool not in allowed and type_ is not Any:
        raise ValueError("true and false are not numbers or text")
    if int in allowed and float not in allowed and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | dict) and {str, Path} & set(allowed):
        raise ValueError("a list or mapping is not text")
    return value


@dataclass
class Builder:
    """Builds nested config dataclasses from a flat mapping of dotted keys to given values."""

    given: Mapping[str, Given]
    picked: dict[str, str] = field(default_factory=dict)
    """The choices made so far: `{"policy.type": "sac"}`."""
    _used: set[str] = field(default_factory=set)

    def unused(self) -> list[str]:
        """Return the given keys that no section built so far has an option for."""
        return [key for key in self.given if key not in self._used]

    def build(self, section: type[T], key: str = "", base: Any = None) -> T:
        """Build a section (a dataclass or a choice of several) found under `key`.

        Args:
            section: The dataclass, or the choice class whose `type` is given.
            key: Dotted name of the section; empty for the whole config.
            base: An instance whose fields stand in for those not given.

        Raises:
            ConfigError: a value is missing, of the wrong type, or refused by the dataclass.
        """
        concrete: Any = self._pick(section, key, base) if choices(section) else section
        base = base if type(base) is concrete else None
        values: dict[str, Any] = {}
        for each in fields(concrete):
            if not each.init:
                continue
            value = self._field(concrete, each.name, join(key, each.name), default_of(each), base)
            if value is not MISSING:
                values[each.name] = value
        try:
            built: T = concrete(**values)
            return built
        except ValueError as error:
            raise ConfigError(f"--{key}: {error}" if key else str(error)) from error

    def _field(self, section: type, name: str, key: str, default: Any, base: Any) -> Any:
        """Return a field's value, or MISSING to leave it to the dataclass's default."""
        type_ = field_types(section)[name]
        nested = section_class(type_)
        default = default if base is None else getattr(base, name)
        if nested is not None:
            value = self._nested(nested, type_, key, default)
        else:
            value = self._leaf(type_, key)
        if value is not MISSING:
            return value
        if default is MISSING:
            text = field_help(section).get(name, "")
            raise ConfigError(f"--{key} is missing: give {describe(type_)}. {text}".rstrip())
        return MISSING if base is None else default

    def _leaf(self, type_: Any, key: str) -> Any:
        self._used.update(name for name in self.given if name == key or name.startswith(f"{key}."))
        inner = {
            name.removeprefix(f"{key}."): given
            for name, given in self.given.items()
            if name.startswith(f"{key}.")
        }
        if not inner:
            return decode_value(key, self.given[key], type_) if key in self.given else MISSING
        merged: dict[str, Any] = {}
        if key in self.given:
            merged.update(decode_value(key, self.given[key], type_) or {})
        texts = dict[str, str] in members(type_)  # a version 1.10 is not the number 1.1
        try:
            merged.update({n: g.value if texts else g.plain() for n, g in inner.items()})
        except yaml.YAMLError as error:
            name, given = next(iter(inner.items()))
            raise ConfigError(f"{given.label(f'{key}.{name}')}: not readable as YAML") from error
        return decode_value(key, Given(merged, Path("command line")), type_)

    def _nested(self, section: type, type_: Any, key: str, default: Any) -> Any:
        self._used.add(key)
        whole = self.given.get(key)
        inside = any(name.startswith(f"{key}.") for name in self.given)
        if whole is not None and whole.value != {}:
            if accepts_null(type_) and whole.value in (None, *NULL_WORDS):
                return None
            first = next(iter(choices(section)), None)
            hint = f"--{key}.type={whole.value}" if first else f"--{key}.<option>=<value>"
            raise ConfigError(
                f"{whole.label(key)}: {key} is a group of options; give {hint}"
                + (" or null" if accepts_null(type_) else "")
            )
        if not inside and whole is None and default is not MISSING:
            return MISSING
        return self.build(section, key, None if default is MISSING else default)

    def _pick(self, section: Any, key: str, base: Any) -> type:
        known = choices(section)
        selector = join(key, "type")
        self._used.add(selector)
        if selector not in self.given:
            for name, kind in known.items():
                if kind is type(base):
                    self.picked[selector] = name
                    return kind
            raise ConfigError(f"--{selector} is missing: choose one of {', '.join(known)}")
        given = self.given[selector]
        if str(given.value) not in known:
            raise unknown_choice(given.label(selector), given.value, list(known))
        self.picked[selector] = str(given.value)
        return known[self.picked[selector]]
