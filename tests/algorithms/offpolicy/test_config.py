"""What off-policy algorithms take of a run's dataset, and what they refuse."""

import numpy as np
import pytest

from leray.algorithms.imitation.config import ImageTransformsConfig
from leray.algorithms.sac.algorithm import SACConfig
from leray.algorithms.trainable import DataSource
from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import ConfigError


@pytest.fixture
def root(tmp_path):
    """A dataset of five episodes."""
    features = Features({"action": Feature("float32", (1,))})
    folder = tmp_path / "data"
    with DatasetWriter.create(folder, fps=10, features=features) as writer:
        for _ in range(5):
            writer.add_episode({"action": np.zeros((2, 1), np.float32)}, "reach")
    return str(folder)


def placed(source: DataSource | None) -> SACConfig:
    config = SACConfig()
    where = {"replay_folder": "", "replay_slack": 0}
    config.place(online=source is None, dataset=source, total_steps=10, **where)
    return config


def test_without_a_dataset_there_is_none():
    assert placed(None).dataset_root is None


def test_held_out_episodes_are_left_out(root):
    assert placed(DataSource(root=root)).dataset_episodes is None
    assert placed(DataSource(root=root, episodes=[4, 1])).dataset_episodes == [4, 1]
    assert placed(DataSource(root=root, held_out=[1, 3])).dataset_episodes == [0, 2, 4]
    some = DataSource(root=root, episodes=[1, 2, 4], held_out=[1, 3])
    assert placed(some).dataset_episodes == [2, 4]


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"num_workers": 2}, "--num_workers=2"),
        ({"memory_limit_mb": 100}, "--dataset.memory_limit_mb=100"),
        ({"use_imagenet_stats": False}, "--dataset.use_imagenet_stats=false"),
        (
            {"image_transforms": ImageTransformsConfig(enable=True)},
            "--dataset.image_transforms.enable=true",
        ),
    ],
)
def test_what_concerns_pictures_is_refused(root, options, flag):
    with pytest.raises(ConfigError, match=f"{flag}: sac holds the dataset in memory"):
        placed(DataSource(root=root, **options))
