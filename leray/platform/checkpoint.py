"""What a checkpoint folder holds: LeRobot's layout, plus what an exact resume needs."""

import json
from pathlib import Path
from typing import Any

from leray.algorithms.trainable import Trainable
from leray.errors import CheckpointError
from leray.files import write_json
from leray.platform.config import TrainConfig
from leray.platform.parsing import encode

PRETRAINED_MODEL = "pretrained_model"
TRAINING_STATE = "training_state"
STEP_FILE = "training_step.json"


class CheckpointFolder:
    """Writes `pretrained_model/` and `training_state/` into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, algorithm: Trainable, config: TrainConfig, step: int) -> None:
        """Write everything; the caller makes it atomic."""
        model, state = self.folder / PRETRAINED_MODEL, self.folder / TRAINING_STATE
        model.mkdir()
        state.mkdir()
        algorithm.save_pretrained(model)
        write_json(model / "train_config.json", encode(config))
        counters = algorithm.save_training_state(state)
        write_json(state / STEP_FILE, {"step": step, **counters})


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """Return the counters of a checkpoint.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = checkpoint / TRAINING_STATE / STEP_FILE
    try:
        counters: dict[str, Any] = json.loads(path.read_text())
        counters["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}): remove {checkpoint} to resume from the "
            "checkpoint before it"
        ) from error
    return counters
