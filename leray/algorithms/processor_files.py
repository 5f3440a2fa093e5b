"""LeRobot's processor files: a JSON of steps, and the statistics of those that normalise."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from leray.errors import CheckpointError
from leray.files import write_json

Stats = dict[str, dict[str, NDArray[np.float32]]]

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
NORMALIZER, UNNORMALIZER = "normalizer_processor", "unnormalizer_processor"
RENAME, BATCH, DEVICE = "rename_observations_processor", "to_batch_processor", "device_processor"
TEXT = (
    *("tokenizer_processor", "smolvla_new_line_processor", "pi0_new_line_processor"),
    *("pi05_prepare_state_tokenizer_processor_step", "action_tokenizer_processor"),
    "pi0_fast_prepare_state_tokenizer_processor_step",
)
"""Steps that make tokens, which is up to the policies that read them."""
KNOWN = {RENAME, BATCH, DEVICE, NORMALIZER, UNNORMALIZER, *TEXT}


@dataclass
class Step:
    """One step of a pipeline."""

    kind: str
    """LeRobot's name for it in its registry."""
    config: dict[str, Any] = field(default_factory=dict)
    stats: Stats = field(default_factory=dict)
    """Statistics by feature name; empty where there are none."""


def write_pipeline(folder: Path, name: str, steps: Sequence[Step]) -> None:
    """Write a pipeline's JSON and state files."""
    entries = []
    for number, step in enumerate(steps):
        entry: dict[str, Any] = {"registry_name": step.kind, "config": step.config}
        if step.stats:
            entry["state_file"] = f"{name}_step_{number}_{step.kind}.safetensors"
            flat = {
                f"{feature}.{stat}": np.array(value, np.float32, order="C")
                for feature, values in step.stats.items()
                for stat, value in values.items()
            }
            save_file(flat, folder / entry["state_file"])
        entries.append(entry)
    write_json(folder / f"{name}.json", {"name": name, "steps": entries})


def read_pipeline(folder: Path, name: str) -> dict[str, Step]:
    """Return the steps of a pipeline by their kind; those that are switched off are left out.

    Raises:
        CheckpointError: a file is missing or damaged, or there is a step that is not known here.
    """
    path = folder / f"{name}.json"
    with damage_told(path):
        entries = json.loads(path.read_text())["steps"]
        steps = [
            Step(
                str(entry.get("registry_name", entry.get("class"))),
                dict(entry.get("config", {})),
                _read_stats(folder, entry.get("state_file")),
            )
            for entry in entries
            if entry.get("config", {}).get("enabled", True)
        ]
    for step in steps:
        if step.kind not in KNOWN:
            raise CheckpointError(
                f"{path} has the step {step.kind}, which is not known here: use LeRobot, or export "
                "the policy without it"
            )
    return {step.kind: step for step in steps}


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a pipeline is read into one line that names its file.

    Raises:
        CheckpointError: the block failed.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} or its state file cannot be read ({type(error).__name__}: {error}): "
            "the checkpoint is incomplete; use another one"
        ) from error


def _read_stats(folder: Path, file: str | None) -> Stats:
    if file is None:
        return {}
    if Path(file).name != file:
        raise ValueError(f"the state file {file} is outside the folder")
    try:
        flat: Mapping[str, NDArray[Any]] = load_file(folder / file)
    except OSError:
        raise
    except Exception as error:  # safetensors raises its own type
        raise ValueError(f"{file} is damaged: {error}") from error
    stats: Stats = {}
    for key, value in flat.items():
        feature, _, stat = key.rpartition(".")
        stats.setdefault(feature, {})[stat] = value
    return stats
