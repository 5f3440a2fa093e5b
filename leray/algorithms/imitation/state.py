"""What resuming imitation needs beside the policy, as safetensors and JSON in LeRobot's layout."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from leray.errors import CheckpointError
from leray.files import write_atomic, write_json

OPTIMIZER_FILE = "optimizer_state.safetensors"
GROUPS_FILE = "optimizer_param_groups.json"
SCHEDULER_FILE = "scheduler_state.json"
AVERAGE_FILE = "ema.safetensors"
_AVERAGE, _AVERAGED = "average/", "weights/"


@dataclass(kw_only=True)
class TrainingState:
    """The state of a learner; there is none of random numbers, which follow from the update.

    On disk: moments and parameter groups of the optimiser, and the schedule of its learning rate,
    under the names of LeRobot's `training_state`; and, where a moving average of the weights acts,
    `ema.safetensors` with both.
    """

    num_updates: int
    moments: dict[str, Tensor]
    """As `optimizer_state` returns them."""
    groups: list[Any]
    average: Mapping[str, Tensor]
    """The moving average of the weights; empty without one."""
    averaged: Mapping[str, Tensor]
    """The weights that it is an average of, likewise."""

    def save(self, folder: Path) -> None:
        """Write the files into a folder that is there."""
        _write(folder / OPTIMIZER_FILE, self.moments)
        write_atomic(folder / GROUPS_FILE, json.dumps(self.groups, indent=4).encode())
        schedule = {
            "base_lrs": [group["initial_lr"] for group in self.groups],
            "last_epoch": self.num_updates,
            "_step_count": self.num_updates + 1,
            "_last_lr": [group["lr"] for group in self.groups],
            "lr_lambdas": [None] * len(self.groups),
        }
        write_json(folder / SCHEDULER_FILE, schedule)
        if self.average:
            average = {_AVERAGE + name: tensor for name, tensor in self.average.items()}
            averaged = {_AVERAGED + name: tensor for name, tensor in self.averaged.items()}
            _write(folder / AVERAGE_FILE, average | averaged)

    def copy(self) -> "TrainingState":
        """Return a copy on the CPU that further updates do not change."""
        moments, average, averaged = (
            {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
            for tensors in (self.moments, self.average, self.averaged)
        )
        return replace(self, moments=moments, average=average, averaged=averaged)

    @classmethod
    def load(cls, folder: Path) -> "TrainingState":
        """Read what `save` wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        try:
            path = folder / AVERAGE_FILE
            stored = load_file(path) if path.exists() else {}
            return cls(
                num_updates=int(json.loads((folder / SCHEDULER_FILE).read_text())["last_epoch"]),
                moments=load_file(folder / OPTIMIZER_FILE),
                groups=list(json.loads((folder / GROUPS_FILE).read_text())),
                average=_part(stored, _AVERAGE),
                averaged=_part(stored, _AVERAGED),
            )
        except Exception as error:  # safetensors raises its own type
            raise CheckpointError(
                f"{folder} is incomplete or damaged ({type(error).__name__}: {_line(error)}): "
                "resume from an earlier checkpoint"
            ) from error


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Raise `CheckpointError` where the block says that a state is of another policy."""
    try:
        yield
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder} does not fit this run ({type(error).__name__}: {_line(error)}): resume with "
            "the options the run was started with"
        ) from error


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _part(stored: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): stored[k] for k in stored if k.startswith(prefix)}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
