"""Samples against a reference that takes them apart frame by frame, over datasets of all kinds."""

import itertools
import json
import pickle

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.samples import Samples, SampleSpec
from leray.errors import ConfigError, DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, WRIST, Camera

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "task_index", "index")
STORAGE = {"memory": None, "mapped": 2**40, "file": 1}
"""The memory limits that lead to each kind of array."""


def reference(made, frames, windows) -> dict[str, np.ndarray]:
    """What a batch holds by the definition: one sample, one feature, one step at a time."""
    batch = {}
    for key, values in made.columns.items():
        if key not in windows:
            batch[key] = np.stack([values[frame] for frame in frames])
            continue
        rows, masks = [], []
        for frame in frames:
            start, end = made.bounds(frame)
            row, mask = [], []
            for offset in windows[key]:
                inside = min(max(frame + offset, start), end - 1)
                row.append(values[inside])
                mask.append(inside != frame + offset)
            rows.append(np.stack(row))
            masks.append(mask)
        batch[key], batch[f"{key}_is_pad"] = np.stack(rows), np.array(masks)
    return batch | {"index": np.array(frames)}


def as_numbers(batch: dict, cameras) -> dict:
    return {k: datasets.numbers(v) if k in cameras else v for k, v in batch.items()}


def random_dataset(folder, seed: int):
    rng = np.random.default_rng(seed)
    version = ("v2.0", "v2.1", "v3.0")[seed % 3]
    episodes = int(rng.integers(1, 7))
    lengths = tuple(rng.integers(1, 12, episodes).tolist())
    shapes = {
        name: tuple(rng.integers(1, 4, int(rng.integers(1, 3))).tolist())
        for name in ("observation.state", "action", "extra")[: int(rng.integers(1, 4))]
    }
    kinds = ["video", "png", "jpeg", "path"]
    cameras = {
        name: Camera(
            kind=str(rng.choice(kinds)), first=bool(rng.integers(2)), options=dict(datasets.LONG)
        )
        for name in (FRONT, WRIST)[: int(rng.integers(0, 3))]
    }
    cut = int(rng.integers(1, episodes + 1))
    files = (cut, episodes - cut) if cut < episodes else (episodes,)
    made = datasets.make(
        folder / f"{seed}",
        version=version,
        lengths=lengths,
        shapes=shapes,
        cameras=cameras,
        seed=seed,
        data_files=files,
        row_group=int(rng.integers(1, 9)),
    )
    windows = {}
    for name in made.columns:
        if name not in BOOKKEEPING and rng.integers(3):
            length = int(rng.integers(1, 9))
            first = int(rng.integers(-6, 4))
            offsets = list(range(first, first + length))
            windows[name] = rng.permutation(offsets).tolist() if rng.integers(2) else offsets
    return made, cameras, windows


@pytest.mark.parametrize("seed", range(36))
def test_samples_equal_the_reference(tmp_path, seed, same):
    made, cameras, windows = random_dataset(tmp_path, seed)
    reader = DatasetReader.open(made.root)
    delta = {name: [step / made.fps for step in steps] for name, steps in windows.items()}
    rng = np.random.default_rng(seed + 100)
    total = sum(made.lengths)
    frames = np.concatenate([np.arange(total), rng.integers(0, total, 10)])
    expected = reference(made, frames.tolist(), windows)
    for limit in STORAGE.values():
        samples = Samples(reader, SampleSpec(delta_timestamps=delta), memory_limit_bytes=limit)
        assert len(samples) == total
        found = as_numbers(samples.gather(frames), cameras)
        same({k: found[k] for k in sorted(found)}, {k: expected[k] for k in sorted(expected)})
        one = as_numbers(samples.gather(frames[:1]), cameras)
        same({k: one[k] for k in sorted(one)}, {k: expected[k][:1] for k in sorted(expected)})


def test_each_limit_leads_to_its_kind_of_array(numeric):
    reader = DatasetReader.open(numeric.root)
    kinds = {}
    for name, limit in STORAGE.items():
        samples = Samples(reader, memory_limit_bytes=limit)
        column = samples._arrays.columns["action"]
        kinds[name] = (type(column).__name__, isinstance(getattr(column, "_values", 0), np.memmap))
    assert kinds == {
        "memory": ("MemoryArray", False),
        "mapped": ("MemoryArray", True),
        "file": ("FileArray", False),
    }


def test_some_episodes_are_counted_from_their_own_start(filmed):
    reader = DatasetReader.open(filmed.root, episodes=[2, 0])
    samples = Samples(reader, SampleSpec(delta_timestamps={"action": [-0.1, 0.0, 0.1]}))
    batch = samples.gather(np.array([0, 39, 40, 69]))
    assert batch["episode_index"].tolist() == [0, 0, 2, 2]
    assert batch["frame_index"].tolist() == [0, 39, 0, 29]
    stored = [0, 39, 65, 94]  # in the whole dataset; episode 1 has the frames 40 to 64
    assert datasets.numbers(batch[FRONT]).tolist() == filmed.columns[FRONT][stored].tolist()
    assert datasets.numbers(batch[WRIST]).tolist() == filmed.columns[WRIST][stored].tolist()
    action = filmed.columns["action"]
    np.testing.assert_array_equal(batch["action"][1], action[[38, 39, 39]])
    np.testing.assert_array_equal(batch["action"][2], action[[65, 65, 66]])
    assert batch["action_is_pad"].tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("limit", STORAGE.values(), ids=STORAGE)
def test_a_copy_in_another_process_gives_the_same(filmed, same, limit):
    reader = DatasetReader.open(filmed.root, episodes=[0, 2])
    spec = SampleSpec(delta_timestamps={FRONT: [-0.1, 0.0], "action": [0.0, 0.1]})
    samples = Samples(reader, spec, memory_limit_bytes=limit)
    frames = np.array([3, 68, 41, 3])
    batch = samples.gather(frames)  # now files are open
    same(pickle.loads(pickle.dumps(samples)).gather(frames), batch)
    same(samples.gather(frames), batch)


def test_nothing_asked_nothing_given(filmed):
    for limit in STORAGE.values():
        spec = SampleSpec(delta_timestamps={"action": [0.0, 0.1], "grid": [-0.1]})
        samples = Samples(DatasetReader.open(filmed.root), spec, memory_limit_bytes=limit)
        batch = samples.gather(np.zeros(0, np.int64))
        assert batch["action"].shape == (0, 2, 2)
        assert batch["action_is_pad"].shape == (0, 2)
        assert batch[FRONT].shape == (0, datasets.HEIGHT, datasets.WIDTH, 3)


def test_keys_and_names_are_chosen(filmed):
    reader = DatasetReader.open(filmed.root)
    renamed = {"action": "move", FRONT: "observation.image"}
    spec = SampleSpec(
        keys=["move", "observation.image"], rename=renamed, delta_timestamps={"move": [0.0, 0.1]}
    )
    samples = Samples(reader, spec)
    batch = samples.gather(np.array([2]))
    assert set(batch) == {"move", "move_is_pad", "observation.image", *BOOKKEEPING}
    np.testing.assert_array_equal(batch["move"][0], filmed.columns["action"][[2, 3]])
    assert datasets.numbers(batch["observation.image"]).tolist() == [filmed.columns[FRONT][2]]
    assert samples.cameras == ["observation.image"]
    assert samples.stored_name("move") == "action"
    assert (samples.window("move"), samples.window("observation.image")) == (2, None)
    assert set(samples.stats) == {"move"}
    swapped = {"action": "observation.state", "observation.state": "action"}
    batch = Samples(reader, SampleSpec(keys=["action"], rename=swapped)).gather(np.array([5]))
    np.testing.assert_array_equal(batch["action"][0], filmed.columns["observation.state"][5])


def test_a_sample_takes_as_much_memory_as_is_said(filmed):
    spec = SampleSpec(delta_timestamps={FRONT: [0.0, 0.1], "action": [0.0, 0.1, 0.2]})
    samples = Samples(DatasetReader.open(filmed.root), spec)
    batch = samples.gather(np.arange(16))
    taken = sum(value.nbytes for value in batch.values()) / 16
    assert taken <= samples.sample_bytes <= taken + 8


@pytest.mark.parametrize(
    ("spec", "error", "fragment"),
    [
        ({"keys": ["nope"]}, DatasetError, "no feature 'nope'; there are: observation.state"),
        ({"rename": {"nope": "x"}}, DatasetError, "no feature 'nope' to rename"),
        ({"rename": {"action": "grid"}}, DatasetError, "two features the same name"),
        ({"rename": {"action": "index"}}, DatasetError, "'index' is taken"),
        ({"rename": {"action": "dataset_index"}}, DatasetError, "'dataset_index' is taken"),
        (
            {"rename": {"grid": "action_is_pad"}, "delta_timestamps": {"action": [0.0]}},
            DatasetError,
            "'action_is_pad' is taken",
        ),
        ({"delta_timestamps": {"nope": [0.0]}}, DatasetError, "asks for 'nope'"),
        ({"delta_timestamps": {"action": [0.05]}}, ConfigError, "not a multiple"),
        ({"keys": ["grid"], "delta_timestamps": {"action": [0.0]}}, DatasetError, "asks for"),
    ],
)
def test_what_cannot_be_given_is_refused_at_once(numeric, spec, error, fragment):
    with pytest.raises(error, match=fragment) as caught:
        Samples(DatasetReader.open(numeric.root), SampleSpec(**spec))
    assert "\n" not in str(caught.value)


def test_a_tolerance_is_passed_on(tmp_path):
    cameras = {FRONT: Camera(jitter_s=0.02)}
    made = datasets.make(tmp_path / "dataset", lengths=(20,), cameras=cameras)
    reader = DatasetReader.open(made.root)
    batch = Samples(reader).gather(np.arange(20))
    assert datasets.numbers(batch[FRONT]).tolist() == made.columns[FRONT].tolist()
    with pytest.raises(DatasetError, match=r"allowed is 0\.0001 s"):
        Samples(reader, SampleSpec(tolerance_s=1e-4)).gather(np.arange(20))


def test_columns_that_a_dataset_lacks_are_counted(tmp_path):
    """Bookkeeping that is not declared comes from the lengths of the episodes."""
    made = datasets.make(tmp_path / "dataset", version="v2.1", tasks=("pick",))
    path = made.root / "meta/info.json"
    info = json.loads(path.read_text())
    for name in ("timestamp", "frame_index", "task_index"):
        del info["features"][name]
    path.write_text(json.dumps(info))
    for limit in STORAGE.values():
        batch = Samples(DatasetReader.open(made.root), memory_limit_bytes=limit).gather(
            np.arange(23)
        )
        for name in ("timestamp", "frame_index", "task_index"):
            np.testing.assert_array_equal(batch[name], made.columns[name])
            assert batch[name].dtype == made.columns[name].dtype


def test_windows_longer_than_the_dataset(tmp_path, same):
    made = datasets.make(tmp_path / "dataset", lengths=(2, 1))
    for limit, first in itertools.product(STORAGE.values(), (-40, 0, 20)):
        steps = list(range(first, first + 30))
        spec = SampleSpec(delta_timestamps={"action": [step / 10 for step in steps]})
        samples = Samples(DatasetReader.open(made.root), spec, memory_limit_bytes=limit)
        expected = reference(made, [0, 1, 2], {"action": steps})
        found = samples.gather(np.arange(3))
        same({k: found[k] for k in sorted(found)}, {k: expected[k] for k in sorted(expected)})


def test_dropped_frames_are_no_samples_but_windows_reach_them(numeric, same):
    reader = DatasetReader.open(numeric.root)  # episodes of 7, 12 and 4 frames
    spec = SampleSpec(delta_timestamps={"action": [0.0, 0.1, 0.2]}, drop_n_last_frames=2)
    kept = [*range(5), *range(7, 17), *range(19, 21)]
    for limit in STORAGE.values():
        samples = Samples(reader, spec, memory_limit_bytes=limit)
        assert len(samples) == 17
        assert samples.episode_ends.tolist() == [5, 15, 17]
        batch = samples.gather(np.arange(17))
        assert batch["index"].tolist() == kept
        assert batch["frame_index"].tolist() == [*range(5), *range(10), *range(2)]
        assert batch["episode_index"].tolist() == [0] * 5 + [1] * 10 + [2] * 2
        assert not batch["action_is_pad"].any()
        action = numeric.columns["action"]
        np.testing.assert_array_equal(batch["action"][4], action[4:7])  # to the end of episode 0
        np.testing.assert_array_equal(batch["action"][14], action[16:19])
        shuffled = np.array([16, 4, 5, 16])
        expected = reference(numeric, [20, 4, 7, 20], {"action": [0, 1, 2]})
        found = samples.gather(shuffled)
        same({k: found[k] for k in sorted(found)}, {k: expected[k] for k in sorted(expected)})
        again = pickle.loads(pickle.dumps(samples))
        same(again.gather(shuffled), found)


def test_windows_that_go_beyond_the_dropped_frames_are_padded(numeric):
    spec = SampleSpec(delta_timestamps={"action": [0.0, 0.2]}, drop_n_last_frames=1)
    samples = Samples(DatasetReader.open(numeric.root), spec)
    batch = samples.gather(np.array([4, 5]))  # frames 4 and 5 of an episode of 7
    assert batch["action_is_pad"].tolist() == [[False, False], [False, True]]
    np.testing.assert_array_equal(batch["action"][1], numeric.columns["action"][[5, 6]])


@pytest.mark.parametrize(("dropped", "ends"), [(4, [3, 11, 11]), (7, [0, 5, 5]), (12, [0, 0, 0])])
def test_episodes_that_are_too_short_have_no_samples(numeric, dropped, ends):
    samples = Samples(DatasetReader.open(numeric.root), SampleSpec(drop_n_last_frames=dropped))
    assert samples.episode_ends.tolist() == ends
    batch = samples.gather(np.arange(len(samples)))
    assert set(batch["episode_index"].tolist()) == {
        episode for episode, length in enumerate((7, 12, 4)) if length > dropped
    }
    first = {int(e): int(f) for e, f in zip(batch["episode_index"], batch["index"], strict=True)}
    lasts = {0: 7, 1: 19, 2: 23}
    assert first == {episode: lasts[episode] - dropped - 1 for episode in first}


@pytest.mark.parametrize("dropped", [0, 3])
def test_dropping_frames_does_not_change_what_a_frame_shows(filmed, dropped):
    spec = SampleSpec(delta_timestamps={FRONT: [-0.1, 0.0]}, drop_n_last_frames=dropped)
    samples = Samples(DatasetReader.open(filmed.root, episodes=[0, 2]), spec)
    batch = samples.gather(np.arange(len(samples)))
    assert len(samples) == 40 + 30 - 2 * dropped
    stored = [*range(40 - dropped), *range(65, 95 - dropped)]
    before = [max(frame - 1, 0 if frame < 40 else 65) for frame in stored]
    shown = datasets.numbers(batch[FRONT])
    assert shown[:, 1].tolist() == filmed.columns[FRONT][stored].tolist()
    assert shown[:, 0].tolist() == filmed.columns[FRONT][before].tolist()
