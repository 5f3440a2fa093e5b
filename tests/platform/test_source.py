"""Which episodes of a dataset a run learns from, and what is fetched for it."""

from pathlib import Path

import pytest

from leray.algorithms.sac.config import SACPolicyConfig
from leray.data.hub import download
from leray.errors import ConfigError, DatasetError
from leray.platform.config import TrainConfig
from leray.platform.sections import DatasetConfig, ValidationConfig
from leray.platform.source import open_source


def opened(dataset: DatasetConfig, **validation):
    held_out = ValidationConfig(**validation)
    config = TrainConfig(policy=SACPolicyConfig(), dataset=dataset, validation=held_out)
    found = open_source(config)
    assert found is not None
    return found


def test_all_episodes_are_learnt_from_unless_some_are_named(demonstrations):
    reader, source = opened(DatasetConfig(root=demonstrations))
    assert (source.episodes, source.held_out, reader.num_episodes) == (None, [], 25)
    assert Path(source.root) == demonstrations.resolve()
    reader, source = opened(DatasetConfig(root=demonstrations, episodes=[3, 1]))
    assert (source.episodes, source.held_out, reader.episodes) == ([3, 1], [], [1, 3])


def test_held_out_episodes_are_not_learnt_from(demonstrations):
    reader, source = opened(DatasetConfig(root=demonstrations), fraction=0.1)
    assert source.held_out == [6, 18]  # the middles of two halves of 25
    assert reader.episodes == source.episodes == [n for n in range(25) if n not in (6, 18)]
    _, source = opened(DatasetConfig(root=demonstrations, episodes=[9, 4, 2, 7]), fraction=0.5)
    assert (source.held_out, source.episodes) == ([4, 9], [2, 7])


def test_episodes_to_hold_out_may_be_outside_those_in_use(demonstrations):
    dataset = DatasetConfig(root=demonstrations, episodes=[0, 1, 2])
    reader, source = opened(dataset, episodes=[2, 20])
    assert (source.held_out, source.episodes, reader.episodes) == ([2, 20], [0, 1], [0, 1])


@pytest.mark.parametrize(
    ("episodes", "validation", "error", "message"),
    [
        ([5], {"episodes": [5]}, ConfigError, "leaves 0 of the 1 episodes in use"),
        ([5], {"fraction": 0.5}, ConfigError, "leaves 1 of the 1 episodes .* and 0 to validate"),
        (None, {"episodes": [25]}, DatasetError, "no episode 25"),
    ],
)
def test_what_cannot_be_held_out(demonstrations, episodes, validation, error, message):
    with pytest.raises(error, match=message):
        opened(DatasetConfig(root=demonstrations, episodes=episodes), **validation)


def test_how_the_dataset_is_read_reaches_the_algorithm(demonstrations):
    dataset = DatasetConfig(root=demonstrations, use_imagenet_stats=False, memory_limit_mb=7)
    dataset.image_transforms.enable = True
    found = open_source(TrainConfig(policy=SACPolicyConfig(), dataset=dataset, num_workers=3))
    assert found is not None
    _, source = found
    assert (source.use_imagenet_stats, source.memory_limit_mb, source.num_workers) == (False, 7, 3)
    assert source.image_transforms is dataset.image_transforms


@pytest.mark.parametrize("reads_pictures", [False, True])
def test_what_is_fetched(demonstrations, tmp_path, monkeypatch, reads_pictures):
    asked = []

    def resolve(repo_id, **options):
        asked.append((repo_id, options))
        return demonstrations

    monkeypatch.setattr(download, "resolve", resolve)
    monkeypatch.setattr(SACPolicyConfig, "reads_pictures", reads_pictures)
    dataset = DatasetConfig(repo_id="lab/reach", root=tmp_path, revision="v3.0", episodes=[0, 1])
    opened(dataset, episodes=[1, 4])
    opened(DatasetConfig(repo_id="lab/reach"))
    common = {"download_videos": reads_pictures}
    assert asked == [
        ("lab/reach", {"root": tmp_path, "revision": "v3.0", "episodes": [0, 1, 4]} | common),
        ("lab/reach", {"root": None, "revision": None, "episodes": None} | common),
    ]


@pytest.mark.parametrize("reads_pictures", [False, True])
def test_a_dataset_that_is_here_is_not_asked_for(demonstrations, monkeypatch, reads_pictures):
    def refuse(*_):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(download, "_download", refuse)
    monkeypatch.setattr(SACPolicyConfig, "reads_pictures", reads_pictures)
    reader, _ = opened(DatasetConfig(repo_id="lab/reach", root=demonstrations))
    assert reader.root == demonstrations
