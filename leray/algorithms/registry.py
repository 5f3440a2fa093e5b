"""From a policy's type to the classes behind it."""

import importlib
from pathlib import Path
from typing import Any

import torch

from leray.algorithms.config import PolicyConfig
from leray.algorithms.hub import pretrained_folder
from leray.algorithms.plugins import register_plugins
from leray.algorithms.policy import Policy
from leray.algorithms.pretrained import read_entries
from leray.errors import ConfigError


def policy_class(policy_type: str) -> Any:
    """Return the class that acts and that reads and writes checkpoints.

    Raises:
        ConfigError: no policy of that type is registered.
    """
    register_plugins()
    try:
        return _import(PolicyConfig.get_choice_class(policy_type).policy_path)
    except KeyError as error:
        known = ", ".join(sorted(PolicyConfig.get_known_choices()))
        raise ConfigError(f"policy type {policy_type!r} is unknown: allowed are {known}") from error


def algorithm_config(config: PolicyConfig) -> Any:
    """Return a fresh RLlib config of the algorithm that trains this policy."""
    return _import(config.algorithm_path)()


def load_policy(path: str | Path, device: str | None = None, revision: str | None = None) -> Policy:
    """Read a policy, whichever algorithm wrote it, ours or LeRobot's.

    Args:
        path: a checkpoint folder, or a policy on the Hub as `user/name`.
        device: where it acts; None takes the best found.
        revision: branch, tag or commit on the Hub.

    Raises:
        CheckpointError: there is no checkpoint, or a damaged one.
        ConfigError: its type of policy is not installed.
    """
    folder = pretrained_folder(path, revision)
    kind = policy_class(read_entries(folder)["type"])
    policy: Policy = kind.from_pretrained(folder, pick_device(device))
    return policy


def pick_device(name: str | None) -> torch.device:
    """Return the device asked for, else the best there is.

    Raises:
        ConfigError: torch does not know it or cannot use it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): allowed are cpu"
            + (", cuda" if torch.cuda.is_available() else "")
        ) from error
    return device


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
