"""YAML files in which every value knows the line it stands in."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from leray.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_MOST_VALUES = 20_000
"""More than any launch file holds; aliases of aliases can stand for billions."""


@dataclass(frozen=True)
class Entry:
    """A value of a YAML file and where it stands.

    Asking for what is not there gives an entry without a value, at the line of the mapping that
    should hold it, so a rule can follow a path and point at the nearest line there is.
    """

    value: Any
    """The plain Python value; None where nothing is."""
    line: int
    """The line of its key, or of the element of a list; counted from 1."""
    last_line: int
    """The last line that may belong to it."""
    inner: Mapping[Hashable, "Entry"] = field(default_factory=dict)
    source: Sequence[str] = ()
    """The lines of the whole file."""

    def __getitem__(self, key: Hashable) -> "Entry":
        """Return what stands under a key of a mapping, or at a position of a list."""
        found = self.inner.get(key)
        return Entry(None, self.line, self.line, {}, self.source) if found is None else found

    def __bool__(self) -> bool:
        """Tell whether there is a value."""
        return self.value is not None

    @property
    def text(self) -> str:
        """The value if it is text, else an empty string."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def mapping(self) -> dict[str, "Entry"]:
        """The entries of a mapping by their names; empty for anything else."""
        if not isinstance(self.value, dict):
            return {}
        return {str(key): entry for key, entry in self.inner.items()}

    @property
    def elements(self) -> list["Entry"]:
        """The entries of a list; empty for anything else."""
        return list(self.inner.values()) if isinstance(self.value, list) else []

    def walk(self) -> Iterator["Entry"]:
        """Yield this entry and all that it holds."""
        yield self
        for entry in self.inner.values():
            yield from entry.walk()

    def find(self, text: str) -> int | None:
        """Return the first line of this entry that holds a text, or None."""
        numbers = range(self.line, self.last_line + 1)
        return next((number for number in numbers if text in self.source[number - 1]), None)

    def line_of(self, *texts: str) -> int:
        """Return the line of the first of these texts that it holds; else where it begins."""
        found = (self.find(text) for text in texts)
        return next((line for line in found if line is not None), self.line)


def read_documents(file: Path, repeated: Callable[[int, str], None]) -> list[Entry]:
    """Read the documents of a YAML file; empty ones are left out.

    Args:
        file: the file.
        repeated: called with the line and the name of a key that its mapping already has.

    Raises:
        ConfigError: the file cannot be read, or not as YAML.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; give a launch file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text: {error}") from error
    loader = yaml.SafeLoader(text)
    reader = _Reader(loader, text.split("\n"), repeated)
    try:
        documents = []
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                documents.append(reader.entry(node, node.start_mark.line + 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{file}:{line}: not readable as YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}:1: not readable as YAML: {error}") from error
    finally:
        loader.dispose()
    return [document for document in documents if document]


class _Reader:
    """Turns the nodes of PyYAML into entries."""

    def __init__(
        self,
        loader: yaml.SafeLoader,
        source: Sequence[str],
        repeated: Callable[[int, str], None],
    ) -> None:
        self._loader = loader
        self._source = source
        self._repeated = repeated
        self._count = 0

    def entry(self, node: yaml.Node, line: int) -> Entry:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {_MOST_VALUES} values", node.start_mark
            )
        inner: dict[Hashable, Entry] = {}
        value: Any
        self._refuse_tag(node)
        if isinstance(node, yaml.MappingNode):
            inner = self._members(node)
            value = {key: entry.value for key, entry in inner.items()}
        elif isinstance(node, yaml.SequenceNode):
            elements = (self.entry(each, each.start_mark.line + 1) for each in node.value)
            inner = dict(enumerate(elements))
            value = [entry.value for entry in inner.values()]
        else:
            value = self._loader.construct_object(node)
        last_line = min(node.end_mark.line + 1, len(self._source))
        return Entry(value, line, max(line, last_line), inner, self._source)

    def _refuse_tag(self, node: yaml.Node) -> None:
        """Refuse lists and mappings that stand for objects; those of scalars PyYAML refuses."""
        plain = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if not isinstance(node, yaml.ScalarNode) and node.tag != _TAG + plain:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.tag} is not allowed", node.start_mark
            )

    def _members(self, node: yaml.MappingNode) -> dict[Hashable, Entry]:
        own = set()
        for key_node, _ in node.value:
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if name in own:
                self._repeated(key_node.start_mark.line + 1, str(name))
            own.add(name)
        self._loader.flatten_mapping(node)  # merge keys, `<<`
        members: dict[Hashable, Entry] = {}
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                mark = key_node.start_mark
                problem = "a list or mapping cannot be a key"
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            members[key] = self.entry(value_node, key_node.start_mark.line + 1)
        return members
