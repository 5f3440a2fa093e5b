"""Filling a replay buffer from a LeRobot dataset."""

import logging
from pathlib import Path

import numpy as np

from leray.algorithms.replay.ring import ReplayBuffer
from leray.data.features import Features, check_compatible
from leray.data.lerobot.columns import Columns
from leray.data.lerobot.reader import DatasetReader
from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment
from leray.errors import DatasetError

logger = logging.getLogger(__name__)


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
        DatasetError: there are no rewards.
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
            f"dataset {reader.root} has no {REWARD}, which reinforcement learning needs; there are: "
            f"{', '.join(reader.features)}: record with `leray record`, or add the column"
        )
    needed = reader.num_frames + 2 * reader.num_episodes
    replay = ReplayBuffer(features, max(capacity, needed), folder=folder)
    if replay.head:
        return replay
    wanted = [*features, REWARD]
    wanted += [key for key in (DONE, TRUNCATED, INTERVENTION) if key in reader.features]
    if DONE not in wanted:
        logger.warning("dataset %s has no %s: episode ends count as terminal", reader.root, DONE)
    columns = reader.read(wanted)
    start = 0
    for end in columns.episode_ends.tolist():
        fragment = _episode(columns, features, start, end)
        if fragment is not None:
            replay.add(fragment)
        start = end
    if len(replay) == 0:
        raise DatasetError(f"dataset {reader.root} holds no transition: record more frames")
    return replay


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
