"""Filling a replay buffer from a LeRobot dataset."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from leray.algorithms.replay.ring import EMPTY, ReplayBuffer
from leray.data.features import Features, check_compatible
from leray.data.lerobot.columns import Columns
from leray.data.lerobot.reader import DatasetReader
from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment
from leray.errors import CheckpointError, DatasetError
from leray.files import write_json

logger = logging.getLogger(__name__)

SOURCE_FILE = "source.json"
"""Beside a memory-mapped buffer: what it was filled from, written when that is done."""


def replay_from_dataset(
    reader: DatasetReader, features: Features, *, capacity: int, folder: Path | None = None
) -> ReplayBuffer:
    """Return a replay buffer that holds a dataset's transitions.

    A frame is a step whose next observation is the next frame's. The last frame of an episode is a
    step only if it is terminal, since what follows it was not recorded.

    Args:
        reader: the dataset; it needs `next.reward`, and `next.done` unless every episode's last
            frame is terminal.
        features: observations and action the policy needs; the dataset may have more.
        capacity: least number of rows; the dataset is always held whole.
        folder: where to keep the buffer memory-mapped; one that is already filled is reused.

    Raises:
        FeatureMismatchError: the dataset lacks a feature, or has it in another shape.
        DatasetError: there are no rewards, or no transitions.
        CheckpointError: the folder was filled from another dataset, or is damaged.
    """
    check_compatible(
        features,
        reader.features,
        left_name="the policy",
        right_name=f"dataset {reader.root}",
        keys=list(features),
    )
    if REWARD not in reader.features:
        raise DatasetError(
            f"dataset {reader.root} has no {REWARD}, which reinforcement learning needs; there "
            f"are: {', '.join(reader.features)}: record with `leray record`, or add the column"
        )
    source = {
        "root": str(reader.root.resolve()),
        "episodes": reader.num_episodes,
        "frames": reader.num_frames,
    }
    if folder is not None and (folder / SOURCE_FILE).exists():
        return _reopen(folder, features, source)
    columns = _read(reader, features)
    fragments = _fragments(columns, features)
    needed = sum(_rows(fragment) for fragment in fragments)
    if not needed:
        raise DatasetError(f"dataset {reader.root} holds no transition: record more frames")
    replay = ReplayBuffer(features, max(capacity, needed), folder=folder)
    replay.rewind(EMPTY)  # a filling that was cut short begins again
    for fragment in fragments:
        replay.add(fragment)
    if folder is not None:
        replay.flush()
        write_json(folder / SOURCE_FILE, source | {"capacity": replay.capacity})
    return replay


def _reopen(folder: Path, features: Features, source: dict[str, Any]) -> ReplayBuffer:
    """Return the buffer that was filled before, and what was added to it since."""
    path = folder / SOURCE_FILE
    try:
        found = json.loads(path.read_text())
        capacity = int(found.pop("capacity"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): remove {folder} to read the dataset again"
        ) from error
    if found != source:
        raise CheckpointError(
            f"{folder} was filled from {found}, and {source} is asked for: keep the run's dataset, "
            "or give another --output_dir"
        )
    return ReplayBuffer(features, capacity, folder=folder)


def _read(reader: DatasetReader, features: Features) -> Columns:
    wanted = [*features, REWARD]
    wanted += [key for key in (DONE, TRUNCATED, INTERVENTION) if key in reader.features]
    if DONE not in wanted:
        logger.warning("dataset %s has no %s: episode ends count as terminal", reader.root, DONE)
    return reader.read(wanted)


def _fragments(columns: Columns, features: Features) -> list[Fragment]:
    """Return one fragment per episode that holds a transition; their arrays are mostly views."""
    ends = columns.episode_ends.tolist()
    episodes = (
        _episode(columns, features, start, end)
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )
    return [fragment for fragment in episodes if fragment is not None]


def _rows(fragment: Fragment) -> int:
    """Return how many rows of a replay a fragment of one new stream takes."""
    return fragment.shape[0] + 1 + int(fragment.ended.sum())


def _episode(columns: Columns, features: Features, start: int, end: int) -> Fragment | None:
    """Return an episode as a fragment of one stream, or None if it holds no transition."""
    frames = slice(start, end)
    done = np.zeros(end - start, np.bool_)
    if DONE in columns.arrays:
        done |= columns[DONE][frames].astype(np.bool_)
    else:
        done[-1] = True
    truncated = np.zeros_like(done)
    if TRUNCATED in columns.arrays:
        truncated |= columns[TRUNCATED][frames].astype(np.bool_)
    done &= ~truncated
    steps = end - start
    if not done[-1]:
        steps -= 1  # what follows the last frame is not known
        if steps == 0:
            return None
        truncated = truncated[:steps]
        truncated[-1] = True
        done = done[:steps]
    last = np.flatnonzero(done | truncated)
    observations = {key: columns[key][frames] for key in features if key != ACTION}
    following = np.minimum(last + 1, end - start - 1)  # of a terminal step it is never read
    final = {key: value[following] for key, value in observations.items()}
    flags = columns.arrays.get(INTERVENTION)
    rows = {key: value[:steps, None] for key, value in observations.items()}
    rows[ACTION] = columns[ACTION][frames][:steps, None]
    rows[REWARD] = columns[REWARD][frames][:steps, None].astype(np.float32)
    rows[DONE] = done[:, None]
    rows[TRUNCATED] = truncated[:, None]
    if flags is not None:
        rows[INTERVENTION] = flags[frames][:steps, None].astype(np.bool_)
    return Fragment(
        columns=rows,
        tail={key: value[-1:] for key, value in observations.items()},
        final=final,
        streams=np.full(1, ANONYMOUS, np.int64),
    )
