"""Replay filled from LeRobot datasets: which frames become transitions, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from leray.algorithms.replay import dataset
from leray.algorithms.replay.dataset import replay_from_dataset
from leray.algorithms.replay.ring import ReplayBuffer
from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.errors import CheckpointError, DatasetError, FeatureMismatchError

STATE = "observation.state"
REAL = Path(__file__).parents[4] / "shared/data/gr1_picknplace_v20"
SCALARS = {
    REWARD: Feature("float32", (1,)),
    DONE: Feature("bool", (1,)),
    TRUNCATED: Feature("bool", (1,)),
    INTERVENTION: Feature("bool", (1,)),
}


@pytest.fixture
def record(tmp_path, features):
    """Write a dataset; each episode is a mapping from a flag's name to the frames that have it.

    Observations count up over the whole dataset; the reward is the observation times ten.
    """

    def write(episodes, length=4, columns=(REWARD, DONE), extra=None, name="demos"):
        declared = {**features, **{key: SCALARS[key] for key in columns}, **(extra or {})}
        with DatasetWriter.create(tmp_path / name, fps=10, features=Features(declared)) as writer:
            for number, flags in enumerate(episodes):
                count = np.arange(number * length, (number + 1) * length, dtype=np.float32)
                episode = {STATE: np.stack([count, -count], -1), ACTION: count / 100}
                for key in columns:
                    episode[key] = count * 10 if key == REWARD else np.zeros(length, np.bool_)
                for key, frames in flags.items():
                    episode[key][frames] = True
                for key, feature in (extra or {}).items():
                    episode[key] = np.zeros((length, *feature.frame_shape), feature.dtype)
                writer.add_episode(episode, "reach")
        return DatasetReader.open(tmp_path / name)

    return write


def _steps(replay, stored):
    return [(t.observation, t.following, t.terminated) for t in stored(replay)]


def test_a_terminal_last_frame_is_a_step(record, features, stored):
    replay = replay_from_dataset(record([{DONE: [3]}, {DONE: [3]}]), features, capacity=1)
    assert [(t.observation, t.terminated, t.reward) for t in stored(replay)] == [
        (0, False, 0),
        (1, False, 10),
        (2, False, 20),
        (3, True, 30),
        (4, False, 40),
        (5, False, 50),
        (6, False, 60),
        (7, True, 70),
    ]
    assert [t.following for t in stored(replay)][:3] == [1, 2, 3]


@pytest.mark.parametrize(
    "flags", [{}, {TRUNCATED: [3]}, {TRUNCATED: [3], DONE: [3]}], ids=["open", "cut", "both"]
)
def test_a_last_frame_that_is_not_terminal_only_ends_the_step_before(
    record, features, stored, flags
):
    reader = record([flags, {DONE: [3]}], columns=(REWARD, DONE, TRUNCATED))
    replay = replay_from_dataset(reader, features, capacity=1)
    assert _steps(replay, stored)[:3] == [(0, 1, False), (1, 2, False), (2, 3, False)]
    assert len(replay) == 3 + 4
    drawn = replay.sample_rows(200, np.random.default_rng(0), n_step=3, discount=0.5)
    first = replay.columns[STATE][drawn.rows, 0] == 2
    assert (drawn.bootstrap[first] == 0.5).all()  # what follows counts, and no other episode does
    assert (drawn.reward[first] == 20.0).all()


def test_without_done_flags_episode_ends_are_terminal(record, features, stored, caplog):
    reader = record([{}], columns=(REWARD,))
    replay = replay_from_dataset(reader, features, capacity=1)
    assert [t.terminated for t in stored(replay)] == [False, False, False, True]
    assert "has no next.done: episode ends count as terminal" in caplog.text


def test_success_held_for_several_frames_fits_too(record, features, stored):
    # every frame that is done ends an episode, which takes a row more than the frame itself
    reader = record([{DONE: [0, 1, 2, 3]}] * 5)
    replay = replay_from_dataset(reader, features, capacity=1)
    assert len(replay) == 20
    assert all(t.terminated for t in stored(replay))


def test_interventions_are_kept(record, features):
    reader = record([{INTERVENTION: [1], DONE: [3]}], columns=(REWARD, DONE, INTERVENTION))
    replay = replay_from_dataset(reader, features, capacity=1)
    assert replay.columns[INTERVENTION][:4].tolist() == [False, True, False, False]


def test_other_features_of_the_dataset_are_ignored(record, features):
    reader = record([{DONE: [3]}], extra={"observation.force": Feature("float64", (6,))})
    assert set(replay_from_dataset(reader, features, capacity=1).columns).isdisjoint(
        {"observation.force"}
    )


def test_missing_rewards_are_refused(record, features):
    reader = record([{DONE: [3]}], columns=(DONE,))
    with pytest.raises(
        DatasetError, match=r"has no next.reward.* there are: .*next.done"
    ) as caught:
        replay_from_dataset(reader, features, capacity=1)
    assert "\n" not in str(caught.value)


def test_a_dataset_without_a_transition_is_refused(record, features):
    with pytest.raises(DatasetError, match="holds no transition"):
        replay_from_dataset(record([{}], length=1), features, capacity=1)


def test_features_that_do_not_fit_are_refused(record):
    reader = record([{DONE: [3]}])
    wanted = Features(
        {
            STATE: Feature("float32", (3,)),
            "observation.force": Feature("float32", (6,)),
            ACTION: Feature("float32", (1,)),
        }
    )
    with pytest.raises(FeatureMismatchError) as caught:
        replay_from_dataset(reader, wanted, capacity=1)
    message = str(caught.value)
    assert "the policy" in message
    assert str(reader.root) in message
    assert "observation.state (shape [3] against [2])" in message
    assert "observation.force (missing in dataset" in message


def test_a_filled_folder_is_reused_with_what_was_added(
    record, features, tmp_path, make_line, monkeypatch
):
    reader, folder = record([{DONE: [3]}] * 3), tmp_path / "replay"
    replay = replay_from_dataset(reader, features, capacity=40, folder=folder)
    assert len(replay) == 12
    replay.add(make_line([0.0] * 5, first=1000.0))
    monkeypatch.setattr(dataset, "_read", lambda *_: pytest.fail("the dataset was read again"))
    again = replay_from_dataset(reader, features, capacity=99, folder=folder)
    assert len(again) == 17
    assert again.capacity == 40


def test_a_filling_that_was_cut_short_begins_again(record, features, tmp_path, monkeypatch):
    reader, folder = record([{DONE: [3]}] * 3), tmp_path / "replay"
    add, calls = ReplayBuffer.add, []

    def dies(replay, fragment):
        calls.append(fragment)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(replay, fragment)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayBuffer, "add", dies)
        with pytest.raises(KeyboardInterrupt):
            replay_from_dataset(reader, features, capacity=40, folder=folder)
    assert len(replay_from_dataset(reader, features, capacity=40, folder=folder)) == 12


def test_a_folder_filled_from_another_dataset_is_refused(record, features, tmp_path):
    folder = tmp_path / "replay"
    replay_from_dataset(record([{DONE: [3]}]), features, capacity=40, folder=folder)
    other = record([{DONE: [3]}] * 2, name="others")
    with pytest.raises(CheckpointError, match=r"was filled from .*demos.* is asked for"):
        replay_from_dataset(other, features, capacity=40, folder=folder)
    (folder / dataset.SOURCE_FILE).write_text("{")
    with pytest.raises(CheckpointError, match=r"source\.json cannot be read"):
        replay_from_dataset(other, features, capacity=40, folder=folder)


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample dataset is not here")
def test_a_real_dataset_is_held_whole():
    reader = DatasetReader.open(REAL)
    info = json.loads((REAL / "meta/info.json").read_text())
    wanted = reader.features.select([key for key in reader.features if key in (STATE, ACTION)])
    columns = reader.read([STATE, DONE])
    replay = replay_from_dataset(reader, wanted, capacity=1)
    done = columns[DONE].astype(bool)
    last = columns.episode_ends - 1
    assert info["total_frames"] == reader.num_frames
    assert len(replay) == reader.num_frames - int((~done[last]).sum())
    live = replay.live_columns()
    steps = np.flatnonzero(live["next"] >= 0)
    kept = np.ones(reader.num_frames, bool)
    kept[last[~done[last]]] = False
    assert np.array_equal(live[STATE][steps], columns[STATE][kept].astype(live[STATE].dtype))
