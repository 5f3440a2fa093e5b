"""The training config that a sweep starts from, and what a trial's values make of it."""

import re
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from leray.algorithms.plugins import register_plugins
from leray.errors import ConfigError
from leray.platform.config import TrainConfig
from leray.platform.parsing import build, flatten
from leray.platform.schema import Option, is_mapping, members, options

SET_BY_SWEEP = ("output_dir", "job_name", "resume")
"""Options of a training run that the sweep decides for each trial."""
RECORDING = "mlflow."
SOURCE = "train"
"""What errors say that options are of."""
CHANGEABLE = re.compile(
    r"policy\.(\w+_)?(lr|lr_backbone|weight|weight_decay|coeff|clip_param|clip_norm)"
)
"""Options that a resumed run reads anew: learning rates, weights of losses, limits of steps. What
shapes networks, environments or stored experience is settled when a run starts."""
SETTLED = ("policy.kl_coeff",)
"""Options of such a name that are only where training starts from, and then steered by itself."""


class Base:
    """What all trials of a sweep have in common.

    Args:
        train: options of the training config, dotted or nested.

    Raises:
        ConfigError: there is no such option, or the sweep decides it.
    """

    def __init__(self, train: Mapping[str, Any]) -> None:
        register_plugins()
        self._options: dict[str, list[Option]] = {}
        for option in options(TrainConfig):
            self._options.setdefault(option.key, []).append(option)
        self._given = flatten(TrainConfig, train, source=SOURCE)
        for key in SET_BY_SWEEP:
            if key in self._given:
                raise ConfigError(f"--train.{key}: each trial has its own; drop it")

    @property
    def leaves(self) -> set[str]:
        """The options that have one value, and no entries of their own."""
        return {key for key in self._options if not is_mapping(self.type_of(key))}

    def type_of(self, key: str) -> Any:
        """Return the type of an option, `Any` for an entry of one that is a mapping.

        Raises:
            ConfigError: there is no such option.
        """
        if key in self._options:
            return self._options[key][0].type
        flatten(TrainConfig, {key: None}, source="space")
        return Any

    def require_variable(self, key: str) -> None:
        """Check that a key of the space is one that trials may differ in.

        Raises:
            ConfigError: it is not, or there is no such option.
        """
        self.type_of(key)
        if key in SET_BY_SWEEP or key.startswith(RECORDING):
            raise ConfigError(f"--space.{key}: the sweep decides it; drop it")

    def changeable(self, policy_type: str) -> list[str]:
        """Return the options of a kind of policy that may change while a trial runs."""
        kinds = (None, ("policy.type", policy_type))
        changeable = [
            key
            for key, several in self._options.items()
            if CHANGEABLE.fullmatch(key)
            and key not in SETTLED
            and any(o.choice in kinds and float in members(o.type) for o in several)
        ]
        return ["batch_size", *sorted(changeable)]

    def gives(self, key: str) -> bool:
        """Tell whether an option is given, and not left at its default."""
        return key in self._given

    def value(self, key: str) -> Any:
        """Return what an option is where no trial changes it.

        Raises:
            ConfigError: there is no such option.
        """
        self.type_of(key)
        default = self._options[key][0].default if key in self._options else None
        return self._given.get(key, None if default is MISSING else default)

    def config(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return the training config of a trial.

        What the base says of one kind of policy or environment is left out where the trial takes
        another that has no such option.

        Args:
            values: options by dotted key.

        Raises:
            ConfigError: an option is unknown, missing, of the wrong type or refused.
        """
        given = dict(self._given)
        for selector, kind in values.items():
            if selector.endswith(".type") and given.get(selector) != kind:
                group = selector.removesuffix("type")
                given = {
                    key: value
                    for key, value in given.items()
                    if not key.startswith(group) or self._belongs(key, (selector, kind))
                }
        return build(TrainConfig, {**given, **values}, source=SOURCE)

    def _belongs(self, key: str, kind: tuple[str, Any]) -> bool:
        """Tell whether an option, or the one it is an entry of, is one of a kind."""
        while key not in self._options:
            key = key.rpartition(".")[0]
        return any(option.choice in (None, kind) for option in self._options[key])
