"""Demonstrations of a linear expert, as small real datasets."""

import numpy as np
import pytest

from leray.algorithms.trainable import DataSource
from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter

LENGTHS = (12, 9, 15, 7)
STATE, ACTIONS = 3, 2


def write_demonstrations(root, *, lengths=LENGTHS, actions=ACTIONS, pictures=False, seed=0):
    """Write episodes of random states with actions that are linear in them."""
    features = {
        "observation.state": Feature("float32", (STATE,)),
        "action": Feature("float32", (actions,)),
    }
    if pictures:
        axes = ("height", "width", "channels")
        features["observation.images.top"] = Feature("image", (8, 10, 3), axes)
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(STATE, actions))
    with DatasetWriter.create(root, fps=10, features=Features(features)) as writer:
        for length in lengths:
            for _ in range(length):
                state = rng.normal(size=STATE)
                frame = {"observation.state": state.astype(np.float32)}
                frame["action"] = (state @ gain + 0.5).astype(np.float32)
                if pictures:
                    shade = np.uint8(127 * (1 + np.tanh(state[0])))
                    frame["observation.images.top"] = np.full((8, 10, 3), shade)
                writer.add_frame(frame, task="follow")
            writer.save_episode()
    return root


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    """Episodes of 12, 9, 15 and 7 frames."""
    return write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "dataset")


@pytest.fixture(scope="session")
def source(demonstrations):
    return DataSource(root=str(demonstrations))
