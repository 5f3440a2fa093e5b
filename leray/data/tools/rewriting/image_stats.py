"""Statistics of the pictures of each episode: the stored ones where sound, else computed."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leray.data import statistics
from leray.data.image_statistics import ImageStatistics, is_std_possible, sampled_frames
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.parquet import read_table
from leray.data.lerobot.reader import DatasetReader
from leray.data.statistics import FeatureStatistics
from leray.data.tools.rewriting.source import Source
from leray.errors import DatasetError

_NEEDED = statistics.KEYS[:5]
_FRAMES_AT_ONCE = 32
_Key = tuple[str, int]
"""Camera and episode index."""


class PictureStatistics:
    """The statistics of every episode's pictures.

    Computed ones take a while (frames are decoded), so they are noted in a journal, where a later
    run finds them.

    Args:
        sources: what the new dataset is made of.
        cameras: names of its visual features.
        journal: file of computed statistics; made when there is none.
    """

    def __init__(self, sources: Sequence[Source], cameras: Sequence[str], journal: Path) -> None:
        self._journal = journal
        self._whole = [
            DatasetReader(s.metadata, np.arange(len(s.metadata.episodes))) for s in sources
        ]
        self._stored = [_sound(source.metadata, cameras) for source in sources]
        self._keys = {
            camera: statistics.KEYS if self._has_quantiles(camera) else _NEEDED
            for camera in cameras
        }
        self._computed = _read_journal(journal)

    def get(self, source: int, position: int, camera: str) -> FeatureStatistics:
        """Return the statistics [channels, 1, 1] of an episode, values in [0, 1].

        All episodes have the same keys: quantiles only when no stored entry lacks them.

        Args:
            source: which of the sources.
            position: row of the episode in that source's episode table.
            camera: name of a visual feature.

        Raises:
            DatasetError: statistics must be computed and frames cannot be read.
        """
        reader = self._whole[source]
        episode = int(reader.metadata.episodes.index[position])
        entry = self._stored[source].get((camera, episode))
        if entry is None:
            entry = self._computed.get((source, camera, episode))
        if entry is None:
            entry = _compute(reader, position, camera)
            self._note(source, camera, episode, entry)
        return {key: entry[key] for key in self._keys[camera]}

    def close(self) -> None:
        """Close the video files that are open."""
        for reader in self._whole:
            reader.close()

    def _has_quantiles(self, camera: str) -> bool:
        return all(
            set(statistics.KEYS) <= set(entry)
            for stored in self._stored
            for (name, _), entry in stored.items()
            if name == camera
        )

    def _note(self, source: int, camera: str, episode: int, entry: FeatureStatistics) -> None:
        plain = statistics.to_json({camera: entry})[camera]
        line = json.dumps([source, camera, episode, plain])
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a") as file:
            file.write(f"\n{line}")  # ends a line that a kill cut short


def _compute(reader: DatasetReader, position: int, camera: str) -> FeatureStatistics:
    lengths = reader.metadata.episodes.length
    frames = int(lengths[:position].sum()) + sampled_frames(int(lengths[position]))
    gathered = ImageStatistics(reader.features[camera].image_shape[2])
    for part in np.split(frames, range(_FRAMES_AT_ONCE, len(frames), _FRAMES_AT_ONCE)):
        for picture in reader.read_frames(camera, part):
            gathered.add(picture)
    return gathered.result()


def _sound(metadata: Metadata, cameras: Sequence[str]) -> dict[_Key, FeatureStatistics]:
    """Read the stored statistics of episodes and keep those that can be true."""
    stored = _from_json_lines if metadata.version == "v2.1" else _from_parquet
    return {
        (camera, episode): entry
        for camera, episode, entry in stored(metadata, cameras)
        if _has_form(entry, metadata.features[camera].image_shape[2])
        and (_is_depth(metadata, camera) or _is_possible(entry))
    }


def _from_json_lines(
    metadata: Metadata, cameras: Sequence[str]
) -> list[tuple[str, int, FeatureStatistics]]:
    path = metadata.root / layout.EPISODES_STATS_JSONL
    if not cameras or not path.is_file():
        return []
    found = []
    try:
        with path.open("rb") as file:
            for line in filter(bytes.strip, file):
                row = json.loads(line)
                stats = {name: row["stats"][name] for name in cameras if name in row["stats"]}
                for name, entry in statistics.from_json(stats).items():
                    found.append((name, int(row["episode_index"]), entry))
    except (ValueError, TypeError, KeyError, OSError, DatasetError) as error:
        raise DatasetError(f"{path} is damaged ({error}); restore or delete it") from error
    return found


def _from_parquet(
    metadata: Metadata, cameras: Sequence[str]
) -> list[tuple[str, int, FeatureStatistics]]:
    if metadata.version != "v3.0" or not cameras:
        return []
    names = [f"stats/{camera}/{key}" for camera in cameras for key in statistics.KEYS]
    found = []
    for path in episodes_files(metadata.root):
        table = read_table(path, ["episode_index", *names])
        for row in table.to_pylist():
            for camera in cameras:
                entry = {key: row.get(f"stats/{camera}/{key}") for key in statistics.KEYS}
                given = {key: value for key, value in entry.items() if value is not None}
                stats = statistics.from_json({camera: given})
                found.append((camera, int(row["episode_index"]), stats[camera]))
    return found


def _has_form(entry: FeatureStatistics, channels: int) -> bool:
    """Tell whether an entry is complete and has one value per channel."""
    return set(_NEEDED) <= set(entry) and all(
        value.shape == ((1,) if key == "count" else (channels, 1, 1))
        for key, value in entry.items()
    )


def _is_possible(entry: FeatureStatistics) -> bool:
    """Tell whether colours in [0, 1] can have these statistics."""
    values = [value for key, value in entry.items() if key != "count"]
    return all(0 <= value.min() <= value.max() <= 1 for value in values) and is_std_possible(entry)


def _is_depth(metadata: Metadata, camera: str) -> bool:
    """Tell whether a camera shows distances, whose statistics keep their unit."""
    told = metadata.info["features"][camera].get("info")
    keys = ("is_depth_map", "video.is_depth_map")
    return isinstance(told, dict) and any(told.get(key) is True for key in keys)


def _read_journal(path: Path) -> dict[tuple[int, str, int], FeatureStatistics]:
    """Read what an earlier run computed; a last line that was cut off is dropped."""
    found: dict[tuple[int, str, int], FeatureStatistics] = {}
    if not path.is_file():
        return found
    for line in path.read_text().splitlines():
        try:
            source, camera, episode, entry = json.loads(line)
        except ValueError:
            continue
        found[source, camera, episode] = statistics.from_json({camera: entry})[camera]
    return found
