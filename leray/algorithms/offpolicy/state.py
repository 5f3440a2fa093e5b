"""What resuming an off-policy run needs beside the weights, as safetensors and JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from leray.errors import CheckpointError
from leray.files import write_json

if TYPE_CHECKING:
    from leray.algorithms.offpolicy.learner import OffPolicyLearner

LEARNER_FILE = "optimizer_state.safetensors"
REPLAY_FILE = "replay_state.json"


def save_state(learner: "OffPolicyLearner", folder: Path) -> None:
    """Write optimiser moments, random states, counters and replay cursors.

    The replay's rows stay in its memory-mapped files, which are flushed to disk.
    """
    tensors = {key: value.cpu().contiguous() for key, value in learner.learner.state_dict().items()}
    save_file(tensors, folder / LEARNER_FILE)
    replays: dict[str, Any] = {"sampler": learner.sampler.state_dict()}
    for name, replay in (("online", learner.online), ("offline", learner.offline)):
        if replay is not None:
            replay.flush()
            replays[name] = replay.state_dict()
    write_json(folder / REPLAY_FILE, replays)


def load_state(learner: "OffPolicyLearner", folder: Path, *, exact: bool) -> int:
    """Go back to what `save_state` wrote; see `OffPolicyLearner.load_training_state`.

    Returns:
        Environment steps in the online replay that were taken after the state was saved and kept.

    Raises:
        CheckpointError: a file is missing or damaged, or the replay has moved too far on.
    """
    try:
        tensors = load_file(folder / LEARNER_FILE)
        replays = json.loads((folder / REPLAY_FILE).read_text())
    except Exception as error:  # safetensors raises its own type
        raise CheckpointError(
            f"{folder} is incomplete or damaged ({type(error).__name__}: {error}): "
            "resume from an earlier checkpoint"
        ) from error
    try:
        learner.learner.load_state_dict({key: torch.as_tensor(v) for key, v in tensors.items()})
        learner.sampler.load_state_dict(replays["sampler"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / LEARNER_FILE} does not fit this run ({error}): resume with the options the "
            "run was started with"
        ) from error
    for name, replay in (("online", learner.online), ("offline", learner.offline)):
        if replay is not None and name in replays and exact:
            replay.rewind(replays[name])
    if learner.online is None or "online" not in replays:
        return 0
    return learner.online.total_steps - int(replays["online"]["total"])
