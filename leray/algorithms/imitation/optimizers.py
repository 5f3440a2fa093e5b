"""The optimiser of an imitation policy, and its state under LeRobot's names."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leray.algorithms.imitation.config import OptimizerPreset
from leray.errors import ConfigError

KINDS: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_PREFIX = "state"


def make_optimizer(groups: list[dict[str, Any]], preset: OptimizerPreset) -> torch.optim.Optimizer:
    """Return the optimiser of a preset; one kernel updates many tensors.

    Args:
        groups: parameter groups; what they do not say is taken from the preset.
        preset: kind and options.

    Raises:
        ConfigError: there is no optimiser of that kind.
    """
    if preset.type not in KINDS:
        raise ConfigError(f"optimizer type {preset.type!r}: allowed are {', '.join(KINDS)}")
    optimizer = KINDS[preset.type](
        groups,
        lr=preset.lr,
        betas=preset.betas,
        eps=preset.eps,
        weight_decay=preset.weight_decay,
        fused=True,
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def scale_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to its initial one times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """Return moments as `state/<parameter>/<name>`, and the groups without their parameters.

    Parameters are numbered through all groups; one that never had a gradient has no moments.
    """
    state = optimizer.state_dict()
    moments = {
        f"{_PREFIX}/{number}/{name}": tensor
        for number, entries in state["state"].items()
        for name, tensor in entries.items()
    }
    return moments, state["param_groups"]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor], groups: list[Any]
) -> None:
    """Take over moments; options such as the learning rate stay as they are.

    Args:
        optimizer: of the same parameters.
        moments: as `optimizer_state` returned them.
        groups: likewise; only which parameters they hold is looked at.

    Raises:
        ValueError: the moments are of other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in groups] != [group["params"] for group in own]:
        raise ValueError("the parameter groups are others")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        prefix, number, name = key.split("/")
        parameter = parameters[int(number)]
        if prefix != _PREFIX or (name != "step" and tensor.shape != parameter.shape):
            raise ValueError(f"{key} has shape {list(tensor.shape)}, not {list(parameter.shape)}")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": own})
