"""A policy's options as attributes of an RLlib config, so that Tune can vary each."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import NotProvided

from leray.algorithms.config import PolicyConfig
from leray.algorithms.placement.algorithm import PlacedConfig
from leray.errors import ConfigError


class OptionsConfig(PlacedConfig):
    """Every field of `policy_config_class` is an attribute here.

    A subclass lists RLlib's options that are spelled differently among the policy's in `aliases`,
    and attributes of its own that `training` sets too in `extra_options`.
    """

    policy_config_class: ClassVar[type[PolicyConfig]]
    aliases: ClassVar[Mapping[str, str]] = {}
    extra_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        for field in dataclasses.fields(self.policy_config_class):
            setattr(self, field.name, _default(field))

    def training(self, **options: Any) -> Self:
        """Set the policy's options by name; everything else goes to RLlib's `training`.

        Raises:
            ConfigError: neither knows the option.
        """
        fields = {field.name for field in dataclasses.fields(self.policy_config_class)}
        names = fields | self.extra_options
        own = {}
        for key in list(options):
            if self.aliases.get(key, key) in names:
                own[self.aliases.get(key, key)] = options.pop(key)
        if unknown := sorted(options.keys() - _training_parameters(type(self))):
            raise ConfigError(
                f"training() got unknown options {unknown}: allowed are "
                f"{', '.join(sorted(names))} and those of RLlib"
            )
        super().training(**options)
        for key, value in own.items():
            if value is not NotProvided:
                setattr(self, key, value)
        return self

    def policy_config(self) -> PolicyConfig:
        """Return the policy's options as their validated dataclass."""
        names = [field.name for field in dataclasses.fields(self.policy_config_class)]
        return self.policy_config_class(**{name: getattr(self, name) for name in names})


def _training_parameters(config_class: type) -> set[str]:
    """Return the options that RLlib's own `training` knows, that of each base class."""
    return {
        name
        for base in config_class.__mro__
        if "training" in vars(base)
        for name in inspect.signature(vars(base)["training"]).parameters
    } - {"self", "options", "kwargs"}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
