"""From the options of a dataset to what an algorithm reads of it."""

from collections.abc import Sequence
from pathlib import Path

from leray.algorithms.trainable import DataSource
from leray.data.lerobot.reader import DatasetReader
from leray.errors import ConfigError
from leray.platform.config import TrainConfig
from leray.platform.sections import DatasetConfig


def open_source(config: TrainConfig) -> tuple[DatasetReader, DataSource] | None:
    """Open the dataset of a run.

    Returns:
        The dataset, of which only the episodes to learn from are selected, and what an algorithm is
        told of it; None where the run has no dataset.

    Raises:
        ConfigError: neither root nor repo_id is given, or no episode is left to learn from.
        DatasetError: the dataset is missing or damaged, or has not the episodes asked for.
    """
    options, asked = config.dataset, config.validation
    if options is None:
        return None
    needed = options.episodes and sorted({*options.episodes, *(asked.episodes or [])})
    root = dataset_root(options, episodes=needed, videos=config.policy.reads_pictures)
    reader = DatasetReader.open(root, episodes=options.episodes)
    episodes, held_out = options.episodes, asked.held_out(reader.episodes)
    if asked.is_asked_for:
        DatasetReader.open(root, episodes=held_out)  # says if one is not there
        episodes = [number for number in reader.episodes if number not in held_out]
        if not held_out or not episodes:
            raise ConfigError(
                f"--validation.* leaves {len(episodes)} of the {reader.num_episodes} episodes in "
                f"use to learn from and {len(held_out)} to validate on: both need at least one"
            )
        reader = DatasetReader.open(root, episodes=episodes)
    return reader, DataSource(
        root=str(reader.root.resolve()),
        episodes=episodes,
        held_out=held_out,
        use_imagenet_stats=options.use_imagenet_stats,
        image_transforms=options.image_transforms,
        num_workers=config.num_workers,
        memory_limit_mb=options.memory_limit_mb,
    )


def dataset_root(
    config: DatasetConfig, *, episodes: Sequence[int] | None = None, videos: bool = False
) -> Path:
    """Return the local folder of a dataset: its root, else that of its repo id, fetched if needed.

    Args:
        config: the options.
        episodes: those that have to be there; None is all.
        videos: whether the cameras' files have to be there.

    Raises:
        ConfigError: neither root nor repo_id is given.
        DatasetError: the dataset is neither here nor on the Hub.
    """
    if config.repo_id is None:
        if config.root is None:
            raise ConfigError(
                "the dataset has neither root nor repo_id: give --dataset.root=<folder>"
            )
        return config.root
    if config.root is not None and (config.root / "meta" / "info.json").is_file() and not videos:
        return config.root
    from leray.data.hub.download import resolve  # the Hub's client only where it is asked for

    return resolve(
        config.repo_id,
        root=config.root,
        revision=config.revision,
        episodes=episodes,
        download_videos=videos,
    )
