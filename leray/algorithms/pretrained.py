"""The files of a checkpoint folder that every policy has, in LeRobot's layout."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import draccus
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from leray.algorithms.config import PolicyConfig
from leray.algorithms.processor import Processor, features_from_policy, policy_features
from leray.data.features import Features
from leray.data.names import ACTION
from leray.errors import CheckpointError
from leray.files import write_json

CONFIG_FILE, WEIGHTS_FILE, ADAPTER_FILE = "config.json", "model.safetensors", "adapter_config.json"


class OldDefaults(NamedTuple):
    """What LeRobot took for entries that were not in a file, until its defaults changed."""

    newer: frozenset[str]
    """Entries that all files have which were written since."""
    defaults: dict[str, Any]


_OLD_DEFAULTS = {
    "diffusion": OldDefaults(frozenset({"resize_shape", "crop_ratio"}), {"crop_shape": [84, 84]})
}
"""By type of policy: those of 0.4.3 and older."""


class StoredConfig(NamedTuple):
    """What `config.json` says."""

    config: Any
    """The policy's options, as the dataclass of its type."""
    features: Features
    """Observations and action."""
    raw: dict[str, Any]
    """All of the file, for what only one kind of policy writes."""


def save_folder(
    folder: Path,
    config: PolicyConfig,
    processor: Processor,
    tensors: Mapping[str, Tensor],
    **extra: Any,
) -> None:
    """Write `config.json`, `model.safetensors` and the processors.

    Args:
        folder: made if it is not there.
        config: the policy's options.
        processor: features and their normalisation.
        tensors: all parameters by name.
        extra: further entries of `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features = processor.features
    options = draccus.encode(config, type(config))
    training_only = [f.name for f in fields(config) if f.metadata.get("training_only")]
    for name in ("type", "normalization_mapping", *training_only):
        options.pop(name, None)
    options["pretrained_path"] = None  # the weights are beside this file
    entries = {
        "type": config.type,
        "input_features": policy_features(features.select([k for k in features if k != ACTION])),
        "output_features": policy_features(features.select([ACTION])),
        "normalization_mapping": dict(processor.norm_map),
    }
    write_json(folder / CONFIG_FILE, {**entries, **extra, **options})
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / WEIGHTS_FILE)
    processor.save(folder, config.device or "cpu")


def read_entries(folder: Path) -> dict[str, Any]:
    """Read `config.json` as it is to be understood here.

    What is missing in files of older versions is there with the value it had for them. The device
    is left open: that of training may not be here.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        entries = dict(json.loads(path.read_text()))
        old = _OLD_DEFAULTS.get(entries["type"])
    except OSError as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error.strerror}): give a folder that holds a policy"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}): give a folder that holds a "
            "policy"
        ) from error
    if old is not None and not entries.keys() & old.newer:
        entries = {**old.defaults, **entries}
    return {**entries, "device": None}


def read_config(folder: Path, family: type[PolicyConfig]) -> StoredConfig:
    """Read `config.json`; entries that the policy does not know are left out.

    Args:
        folder: what `save_folder` wrote.
        family: the kind of options expected: that class or one derived from it.

    Raises:
        CheckpointError: the file is missing or damaged, or of another kind of policy.
    """
    raw = read_entries(folder)
    try:
        kind = PolicyConfig.get_choice_class(raw["type"])
        if not issubclass(kind, family):
            raise ValueError(f"it is of type {raw['type']}")
        names = {field.name for field in fields(kind)}
        config = draccus.decode(kind, {key: raw[key] for key in raw if key in names})
        features = features_from_policy(raw["input_features"] | raw["output_features"])
    except Exception as error:  # draccus raises its own types, with several lines
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / CONFIG_FILE} cannot be read ({type(error).__name__}: {reason}): give a "
            "folder that holds a checkpoint of this policy"
        ) from error
    return StoredConfig(config, features, raw)


def read_tensors(
    folder: Path, device: torch.device | None = None, *, prefixes: tuple[str, ...] = ("",)
) -> dict[str, Tensor]:
    """Read `model.safetensors`.

    Args:
        folder: the checkpoint.
        device: where the tensors go; None is the CPU.
        prefixes: of the names that are read; the others stay in the file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file() and (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds an adapter ({ADAPTER_FILE}) and no weights of its own: merge it into "
            "its base in LeRobot"
        )
    try:
        with safe_open(path, "pt", device=str(device or "cpu")) as file:
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: give another checkpoint") from error
    except Exception as error:  # safetensors raises its own type
        raise CheckpointError(f"{path} is damaged ({error}): give another checkpoint") from error
