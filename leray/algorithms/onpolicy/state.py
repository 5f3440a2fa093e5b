"""What a learner of RLlib keeps beside the module: functions that run where the learner is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from safetensors.torch import load_file, save_file
from torch import Tensor

from leray.errors import CheckpointError
from leray.files import write_json

TENSORS_FILE = "optimizer_state.safetensors"
GROUPS_FILE = "optimizer_param_groups.json"
State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors of an optimiser, and plain values beside them."""


def module_tensors(learner: Any) -> dict[str, Tensor]:
    """Return copies of all parameters of the module, on the CPU."""
    state = learner.module[DEFAULT_MODULE_ID].unwrapped().state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def acting_weights(learner: Any) -> dict[str, Any]:
    """Return what env runners need of the module, in the form they take."""
    weights: dict[str, Any] = learner.get_state(
        components=COMPONENT_RL_MODULE, inference_only=True
    )[COMPONENT_RL_MODULE]
    return weights


def load_module_tensors(learner: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Take over all parameters; return the names that do not fit, in which case none is taken."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    own = module.state_dict()
    wrong = sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape
    )
    if not wrong:
        module.load_state_dict(dict(tensors))
    return wrong


def num_updates(learner: Any) -> int:
    """Return the gradient steps taken; the optimiser counts them."""
    moments = list(_optimizer(learner).state.values())
    return int(moments[0]["step"]) if moments else 0


def learner_state(learner: Any) -> State:
    """Return the optimiser's moments on the CPU, its groups, and the weight of the KL penalty."""
    state = _optimizer(learner).state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, moments in state["state"].items()
        for name, value in moments.items()
    }
    kl_coeff = float(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])
    return tensors, {"param_groups": state["param_groups"], "kl_coeff": kl_coeff}


def load_learner_state(learner: Any, state: State) -> None:
    """Take over what `learner_state` returned.

    Raises:
        ValueError, KeyError, RuntimeError: it is of another optimiser.
    """
    tensors, plain = state
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = tensor
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in plain["param_groups"]
    ]
    _optimizer(learner).load_state_dict({"state": moments, "param_groups": groups})
    learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID].data.fill_(plain["kl_coeff"])


def write_state(folder: Path, state: State) -> None:
    """Write a learner's state as safetensors and JSON."""
    save_file(state[0], folder / TENSORS_FILE)
    write_json(folder / GROUPS_FILE, state[1])


def read_state(folder: Path) -> State:
    """Read what `write_state` wrote.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        return load_file(folder / TENSORS_FILE), json.loads((folder / GROUPS_FILE).read_text())
    except Exception as error:  # safetensors raises its own type
        raise CheckpointError(
            f"{folder} is incomplete or damaged ({type(error).__name__}: {error}): "
            "resume from an earlier checkpoint"
        ) from error


def _optimizer(learner: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = learner.get_optimizer(DEFAULT_MODULE_ID)
    return optimizer
