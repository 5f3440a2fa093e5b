"""From a command line and config files to a validated config, and back to YAML."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import draccus
import yaml

from leray.algorithms.plugins import register_plugins
from leray.errors import ConfigError
from leray.platform.home.home import resumed_config
from leray.platform.home.store import remote_url
from leray.platform.run_directory import TRAIN_CONFIG, resolve_pretrained_model, run_of
from leray.platform.schema import Option, describe, is_mapping, options
from leray.platform.values import Builder, ConfigLoader, Given, decode_value

T = TypeVar("T")
CONFIG_PATH = "config_path"


def parse(config_class: type[T], argv: Sequence[str], *, command: str) -> T:
    """Parse a command line into a config.

    Values come, strongest first, from flags (`--a.b=value` or `--a.b value`), from the file of
    `--config_path` (YAML or JSON), from the checkpoint of `--policy.path`, and from the defaults.
    With `--resume=true`, the file is the run's own `train_config.yaml`, or what
    the config class names as its `record`.

    Args:
        config_class: The config dataclass to build.
        argv: Arguments after the command's name.
        command: Name shown in advice, for example `train`.

    Raises:
        ConfigError: anything is unknown, missing, of the wrong type or refused by the config.
    """
    register_plugins()
    names = _Names(config_class, command)
    flags = _read_flags(argv, names)
    _refuse_overlaps(flags, names)
    given = _add_file(flags, names)
    given = _add_policy_path(given, flags, names)
    return _build(config_class, given, names)


def check(config_class: type, argv: Sequence[str], *, command: str) -> None:
    """Refuse a command line that is for another machine, as far as this one can tell.

    Names of options always count. Values do, too, unless they come from files that may be on the
    other machine alone: a config file or a checkpoint that is not here, a run to resume.

    Raises:
        ConfigError: as `parse`.
    """
    register_plugins()
    flags = _read_flags(argv, _Names(config_class, command))
    files = [flags[key] for key in (CONFIG_PATH, "policy.path") if key in flags]
    known = all(Path(str(file.value)).expanduser().exists() for file in files)
    if known and "resume" not in flags:
        parse(config_class, argv, command=command)


def load(config_class: type[T], path: Path) -> T:
    """Read a config from a YAML or JSON file, as `dump` or a person wrote it.

    Raises:
        ConfigError: the file is missing, damaged, or does not fit the config.
    """
    register_plugins()
    names = _Names(config_class, "train")
    given = _add_policy_path(_read_file(path, names), {}, names)
    return _build(config_class, given, names)


def build(config_class: type[T], tree: Mapping[str, Any], *, source: str) -> T:
    """Build a config from a nested mapping, checked like that of a file.

    The kinds of policies and environments must have been registered, see `register_plugins`.

    Args:
        config_class: The config dataclass to build.
        tree: Options by name; a key may be dotted, and of two that mean the same the later counts.
        source: What errors call the place the mapping comes from.

    Raises:
        ConfigError: anything is unknown, missing, of the wrong type or refused by the config.
    """
    names = _Names(config_class, "train")
    given = _add_policy_path(_given(tree, names, Path(source)), {}, names)
    return _build(config_class, given, names)


def flatten(config_class: type, tree: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return the options of a nested mapping by their dotted keys; see `build`.

    Raises:
        ConfigError: the config class has no such option.
    """
    given = _given(tree, _Names(config_class, "train"), Path(source))
    return {key: value.value for key, value in given.items()}


def encode(config: Any) -> dict[str, Any]:
    """Return a config as nested plain values (for YAML, JSON), each choice with its `type`."""
    plain: dict[str, Any] = draccus.encode(config)
    if isinstance(config, draccus.ChoiceRegistry):
        plain = {"type": config.get_choice_name(type(config)), **plain}
    return plain


def dump(config: Any) -> str:
    """Return a config as YAML that `load` turns back into an equal config."""
    return yaml.safe_dump(encode(config), sort_keys=False, allow_unicode=True, width=100)


class _Names:
    """The names a config class knows, and advice for those it does not."""

    def __init__(self, config_class: type, command: str) -> None:
        self.command = command
        self.record: str = getattr(config_class, "record", TRAIN_CONFIG)
        self.by_key: dict[str, list[Option]] = {}
        for option in options(config_class):
            self.by_key.setdefault(option.key, []).append(option)
        self.sections = {
            key[:end] for key in self.by_key for end, sign in enumerate(key) if sign == "."
        }

    def value_type(self, key: str) -> Any:
        """Return the type of an option, or None for a section or an entry of a mapping."""
        return self.by_key[key][0].type if key in self.by_key else None

    def knows(self, key: str) -> bool:
        """Tell whether a key is an option, a section, or an entry of a mapping option."""
        return key in self.by_key or key in self.sections or self._mapping(key) is not None

    def _mapping(self, key: str) -> str | None:
        parents = (key[:end] for end, sign in enumerate(key) if sign == ".")
        return next((p for p in parents if is_mapping(self.value_type(p))), None)

    def nearest(self, key: str) -> str | None:
        """Return the known name most like an unknown one."""
        names = [CONFIG_PATH, *self.by_key]
        same_end = [name for name in names if name.endswith(f".{key}")]
        if same_end:
            return same_end[0]
        near = difflib.get_close_matches(key.replace("-", "_"), names, 1)
        return near[0] if near else None

    def unknown_flag(self, key: str) -> ConfigError:
        """Build the error for a flag that does not exist."""
        near = self.nearest(key)
        hint = f"did you mean --{near}? " if near else ""
        return ConfigError(f"--{key}: unknown flag; {hint}`leray {self.command} --help` lists all")

    def unknown_key(self, file: Path, key: str) -> ConfigError:
        """Build the error for a file's key that does not exist."""
        near = self.nearest(key)
        hint = f"did you mean {near}? " if near else ""
        return ConfigError(
            f"{file}: {key}: unknown key; {hint}`leray {self.command} --help` lists all"
        )


def _read_flags(argv: Sequence[str], names: _Names) -> dict[str, Given]:
    """Read `--key=value`, `--key value`, and `--key` alone for a switch; the last one counts."""
    flags: dict[str, Given] = {}
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not key:
            guess = key.lstrip("-")
            hint = f"; did you mean --{token.lstrip('-')}?" if names.knows(guess) and guess else ""
            raise ConfigError(f"{token}: not an option; options are written --name=value{hint}")
        if key != CONFIG_PATH and not names.knows(key):
            raise names.unknown_flag(key)
        if not equals:
            value = _following(key, tokens, names)
        flags[key] = Given(value)
    return flags


def _following(key: str, tokens: list[str], names: _Names) -> str:
    type_ = str if key == CONFIG_PATH else names.value_type(key)
    if tokens and not tokens[0].startswith("--"):
        return tokens.pop(0)
    if type_ is bool:
        return "true"
    if type_ is None:
        raise ConfigError(f"--{key}: needs a value, or an option of this group: --{key}.<option>=")
    raise ConfigError(f"--{key}: needs a value: --{key}=<{describe(type_)}>")


def _refuse_overlaps(flags: Mapping[str, Given], names: _Names) -> None:
    for key in flags:
        inner = next((name for name in flags if name.startswith(f"{key}.")), None)
        if inner and key in names.sections:
            raise ConfigError(f"{flags[key].label(key)} contradicts --{inner}: give one of them")


def _flatten(tree: Mapping[Any, Any], names: _Names, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted keys and values, descending into sections but not into mapping options."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key not in names.by_key and isinstance(value, Mapping) and value:
            yield from _flatten(value, names, f"{key}.")
        else:
            yield key, value


def _read_tree(file: Path) -> Mapping[str, Any]:
    """Read a YAML or JSON file that holds one mapping."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such config file; give a YAML or JSON file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as a config file: {error}") from error
    try:
        json_file = file.suffix == ".json"
        tree = json.loads(text) if json_file else yaml.load(text, ConfigLoader)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file}: damaged, not readable as YAML or JSON: {reason}") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{file}: holds no options; write them as `name: value` lines")
    return tree


def _read_file(file: Path, names: _Names) -> dict[str, Given]:
    return _given(_read_tree(file), names, file)


def _given(tree: Mapping[str, Any], names: _Names, file: Path) -> dict[str, Given]:
    given = {}
    for key, value in _flatten(tree, names):
        if not names.knows(key):
            raise names.unknown_key(file, key)
        given[key] = Given(value, file)
    return given


def _add_file(flags: Mapping[str, Given], names: _Names) -> dict[str, Given]:
    """Put the config file's values below the flags; find it when a run is resumed."""
    flags = dict(flags)
    chosen = flags.pop(CONFIG_PATH, None)
    file = Path(str(chosen.value)).expanduser() if chosen else None
    resumable = {"resume", "output_dir"} <= names.by_key.keys()
    if resumable and "resume" in flags and decode_value("resume", flags["resume"], bool):
        file = _resumed_file(file, flags, names.record)
    if file is None:
        return flags
    stored = _read_file(file, names)
    if resumable:  # whether to go on with a run is said on the command line, not in its record
        stored.pop("resume", None)
    for key in list(stored):
        emptied = any(key.startswith(f"{flag}.") for flag in flags)  # --env=null
        filled = key in names.sections and any(flag.startswith(f"{key}.") for flag in flags)
        if emptied or filled:
            del stored[key]
    return {**stored, **flags}


def _resumed_file(file: Path | None, flags: dict[str, Given], record: str) -> Path:
    """Return the config of the run to go on with, and settle `output_dir`."""
    if file is None:
        if "output_dir" not in flags:
            raise ConfigError(
                f"--resume=true: which run? Give --output_dir=<run> or --config_path=<run>/{record}"
            )
        url = remote_url(str(flags["output_dir"].value))
        if url is not None:
            return resumed_config(url, record)
        run = Path(str(flags["output_dir"].value)).expanduser()
        if not (run / record).is_file():
            raise ConfigError(f"--output_dir={run}: no run to resume, {record} is not there")
        return run / record
    run_folder = run_of(file, record)
    if run_folder is not None:
        flags.setdefault("output_dir", Given(str(run_folder)))
    return file


def _add_policy_path(
    given: dict[str, Given], flags: Mapping[str, Given], names: _Names
) -> dict[str, Given]:
    """Replace `policy.path` by the options stored in that checkpoint, below all others."""
    known = names.by_key.get("policy.path", [])
    # A command whose `policy` is no choice of kinds has `policy.path` as an ordinary option.
    if "policy.path" not in given or "policy.pretrained_path" not in names.by_key or not known:
        return given
    path = given["policy.path"]
    if path.file is None and "policy.type" not in flags:
        given = {k: v for k, v in given.items() if not k.startswith("policy.") or k in flags}
    if "policy.type" in given:
        raise ConfigError(
            f"{path.label('policy.path')}: the checkpoint already says which policy it is; "
            "drop --policy.type"
        )
    folder = resolve_pretrained_model(Path(str(path.value)).expanduser())
    stored = dict(_flatten({"policy": _read_tree(folder / "config.json")}, names))
    kind = ("policy.type", stored.get("policy.type"))
    below = {
        key: Given(value, folder / "config.json")
        for key, value in stored.items()
        if any(option.choice in (None, kind) for option in names.by_key.get(key, []))
    }
    given = {key: value for key, value in given.items() if key != "policy.path"}
    return {**below, **given, "policy.pretrained_path": Given(str(folder))}


def _build(config_class: type[T], given: Mapping[str, Given], names: _Names) -> T:
    """Build the config, and refuse options that belong to another choice than the one made."""
    builder = Builder(given)
    config = builder.build(config_class)
    for key in builder.unused():
        owners = [option.choice for option in names.by_key.get(key, []) if option.choice]
        selector = owners[0][0]
        kinds = " or ".join(sorted(kind for _, kind in owners))
        raise ConfigError(
            f"{given[key].label(key)}: {key} belongs to --{selector}={kinds}, "
            f"not to {builder.picked[selector]}"
        )
    return config
