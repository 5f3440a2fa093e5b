"""Deleting, splitting, merging, dropping features and renaming tasks, checked by reading back."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools import edit
from leray.data.tools.convert import convert
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError, FeatureMismatchError

_SPEC = importlib.util.spec_from_file_location("v21", Path(__file__).with_name("v21.py"))
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)

CAMERAS = (v21.FRONT, v21.WRIST)
SAMPLES = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A v2.1 dataset: one file per episode."""
    return v21.make(tmp_path_factory.mktemp("old") / "old", cameras=CAMERAS)


@pytest.fixture(scope="module")
def new(old, tmp_path_factory):
    """The same as v3.0: all episodes in one file."""
    return convert(old, tmp_path_factory.mktemp("new") / "new").folder


@pytest.fixture(params=["v2.1", "v3.0"])
def root(request, old, new):
    root = old if request.param == "v2.1" else new
    before = digest(root)
    yield root
    assert digest(root) == before


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def info_of(root: Path) -> dict:
    return json.loads((root / "meta/info.json").read_text())


def stats_of(root: Path) -> dict:
    return json.loads((root / "meta/stats.json").read_text())


def assert_made_of(folder: Path, parts: list[tuple[Path, int]]) -> None:
    """Check that a dataset holds these episodes of these datasets, frame by frame."""
    made = DatasetReader.open(folder)
    columns, start = made.read(), 0
    assert made.findings == []
    assert made.num_episodes == len(parts) == info_of(folder)["total_episodes"]
    assert info_of(folder)["splits"] == {"train": f"0:{len(parts)}"}
    for number, (root, episode) in enumerate(parts):
        source = DatasetReader.open(root, episodes=[episode])
        before, end = source.read(), start + source.num_frames
        for name, array in before.arrays.items():
            np.testing.assert_array_equal(columns[name][start:end], array)
        assert (columns.episode_index[start:end] == number).all()
        np.testing.assert_array_equal(columns.frame_index[start:end], np.arange(end - start))
        np.testing.assert_array_equal(columns.timestamp[start:end], before.timestamp)
        old_tasks = [source.tasks[index] for index in before.task_index]
        assert [made.tasks[index] for index in columns.task_index[start:end]] == old_tasks
        for camera in made.cameras:
            np.testing.assert_array_equal(
                made.read_frames(camera, np.arange(start, end)),
                source.read_frames(camera, np.arange(end - start)),
            )
        start = end
    assert start == made.num_frames == info_of(folder)["total_frames"]
    files = sorted((folder / "data").rglob("*.parquet"))
    index = np.concatenate([pq.read_table(file)["index"].to_numpy() for file in files])
    np.testing.assert_array_equal(index, np.arange(start))


@pytest.mark.parametrize(("deleted", "left"), [([1], [0, 2]), ([0, 2], [1]), ([0], [1, 2])])
def test_delete_episodes(root, tmp_path, deleted, left):
    made = edit.delete_episodes(root, tmp_path / "out", deleted)
    assert (made.num_episodes, made.notes) == (len(left), [])
    assert_made_of(made.folder, [(root, episode) for episode in left])
    assert DatasetReader.open(made.folder).tasks == v21.TASKS  # numbers stay
    states = [v21.numbers(episode)["observation.state"] for episode in left]
    mean = np.concatenate(states).astype(float).mean(axis=0)
    np.testing.assert_allclose(stats_of(made.folder)["observation.state"]["mean"], mean)
    assert stats_of(made.folder)["observation.state"]["count"] == [sum(map(len, states))]
    wanted = np.average([0.1 + 0.1 * episode for episode in left])  # of 100 pictures each
    np.testing.assert_allclose(stats_of(made.folder)[v21.FRONT]["mean"], [[[wanted]]] * 3)


def test_deleting_from_a_recording_of_av1_copies_the_bytes(tmp_path):
    root = SAMPLES / "so101_rosbag_v30"
    if not root.is_dir():
        pytest.skip("the recorded dataset so101_rosbag_v30 is not on this machine")
    made = edit.delete_episodes(root, tmp_path / "out", [0, 1, 3])
    assert made.notes == []  # nothing was encoded anew
    assert_made_of(made.folder, [(root, episode) for episode in (2, 4, 5)])


@pytest.mark.parametrize(
    ("encoder", "codec", "options"),
    [
        ("libx264", "h264", {"g": "100", "bf": "2", "crf": "10"}),
        ("libsvtav1", "av1", {"g": "100", "crf": "30", "preset": "12"}),
    ],
)
@pytest.mark.parametrize(("deleted", "left"), [([0, 2], [1]), ([1], [0, 2])])
def test_episodes_that_meet_between_key_frames_are_encoded_anew(
    new, tmp_path, encoder, codec, options, deleted, left
):
    root = tmp_path / "long"
    convert(new, root, repack=True)
    path = root / f"videos/{v21.FRONT}/chunk-000/file-000.mp4"
    frames = [v21.picture(e, k) for e, length in enumerate(v21.LENGTHS) for k in range(length)]
    v21.film(path, frames, encoder, options)
    made = edit.delete_episodes(root, tmp_path / "out", deleted)
    (note,) = made.notes
    assert note.endswith("were encoded anew: their episodes begin or end between key frames")
    before = DatasetReader.open(root, episodes=left)
    number = np.arange(before.num_frames)
    pictures = before.read_frames(v21.FRONT, number).astype(int)
    after = DatasetReader.open(made.folder).read_frames(v21.FRONT, number)
    assert np.abs(pictures - after).mean(axis=(1, 2, 3)).max() < 3
    with VideoReader(tmp_path / f"out/videos/{v21.FRONT}/chunk-000/file-000.mp4") as video:
        assert (video.num_frames, video.codec) == (before.num_frames, codec)


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        ({"train": 0.7, "val": 0.3}, {"train": [0, 1], "val": [2]}),
        ({"train": 2 / 3}, {"train": [0, 1]}),
        ({"a": [2, 0], "b": [1]}, {"a": [0, 2], "b": [1]}),
        ({"test": [2]}, {"test": [2]}),
    ],
)
def test_split(root, tmp_path, splits, parts):
    made = edit.split(root, tmp_path / "out", splits)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(parts)
    for name, episodes in parts.items():
        assert made[name].folder == tmp_path / "out" / name
        assert_made_of(made[name].folder, [(root, episode) for episode in episodes])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"a": 0.9, "b": 0.2}, r"fractions must be above 0 and sum to at most 1"),
        ({"a": 0.0}, r"fractions must be above 0"),
        ({"a": 0.5, "b": [1]}, r"all fractions or all lists"),
        ({}, r"all fractions or all lists"),
        ({"a": None}, r"all fractions or all lists"),
        ({"a": ["0"]}, r"all fractions or all lists"),
        ({"a": [0, 1], "b": [1]}, r"episode 1 is in two splits, 'a' and 'b'"),
        ({"a": [0], "b": [3]}, r"has no episode 3; there are: 0 to 2"),
        ({"a": 0.99, "b": 0.01}, r"split 'b' of .* would be empty: there are 3 episodes"),
        ({"../a": [0]}, r"split '../a' cannot be the name of a folder"),
        ({"": [0]}, r"split '' cannot be"),
    ],
)
def test_splits_that_make_no_sense(new, tmp_path, splits, message):
    with pytest.raises(DatasetError, match=message):
        edit.split(new, tmp_path / "out", splits)
    assert list(tmp_path.iterdir()) == []


def test_merge_datasets_of_different_versions(old, new, tmp_path):
    made = edit.merge([new, old], tmp_path / "out")
    parts = [(root, episode) for root in (new, old) for episode in range(3)]
    assert made.notes == []
    assert_made_of(made.folder, parts)
    assert DatasetReader.open(made.folder).tasks == v21.TASKS
    assert len(list(made.folder.rglob("*.mp4"))) == 1
    assert stats_of(made.folder)["action"]["count"] == [88]
    assert stats_of(made.folder)["action"]["min"] == [0.0, 0.5]
    assert stats_of(made.folder)["action"]["max"] == [220.0, 220.5]


def test_merge_unites_tasks_and_numbers(old, tmp_path):
    other = v21.make(tmp_path / "other", cameras=CAMERAS, lengths=(4, 5), robot_type="panda")
    tasks = [{"task_index": 0, "task": "place"}, {"task_index": 2, "task": "push"}]
    tasks.append({"task_index": 1, "task": "pick"})
    (other / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    rows = [{"episode_index": 0, "tasks": ["place"], "length": 4}]
    rows.append({"episode_index": 1, "tasks": ["push"], "length": 5})
    (other / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    info = info_of(other)
    info["features"]["action"]["dtype"] = "float64"
    (other / "meta/info.json").write_text(json.dumps(info))
    made = edit.merge([old, other], tmp_path / "out")
    assert made.notes == ["robot types differ (so101, panda); the first is kept"]
    dataset = DatasetReader.open(made.folder)
    assert dataset.tasks == ["pick", "unused", "place", "push"]
    assert dataset.metadata.episodes.tasks[3:] == (("place",), ("push",))
    assert dataset.features["action"].dtype == "float64"
    assert dataset.robot_type == "so101"
    assert_made_of(made.folder, [(old, 0), (old, 1), (old, 2), (other, 0), (other, 1)])


def test_merged_videos_that_do_not_fit_get_files_of_their_own(old, tmp_path):
    other = v21.make(tmp_path / "other", cameras=CAMERAS, lengths=(4,))
    frames = [v21.picture(0, k) for k in range(4)]
    path = other / f"videos/chunk-000/{v21.FRONT}/episode_000000.mp4"
    v21.film(path, frames, "libsvtav1", {"g": "2", "crf": "40"})
    made = edit.merge([old, other], tmp_path / "out")
    assert len(list((made.folder / "videos").rglob("*.mp4"))) == 2
    assert_made_of(made.folder, [(old, 0), (old, 1), (old, 2), (other, 0)])


def test_files_that_the_datasets_do_not_share_are_named(old, new, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    convert(old, one)
    convert(old, other)
    for root, text in ((one, "first"), (other, "second")):
        (root / "meta/modality.json").write_text(text)
        (root / "LICENSE").write_text("the same")
    made = edit.merge([one, other], tmp_path / "out")
    assert made.notes == ["meta/modality.json differs between the datasets; it was not copied"]
    assert (made.folder / "LICENSE").read_text() == "the same"


def change(root: Path, feature: str, **entry) -> Path:
    info = info_of(root)
    info["features"][feature] |= entry
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"cameras": [v21.WRIST]}, r"front \(missing in .*other"),
        ({"fps": 20}, r"has 10 frames per second, .*other has 20"),
        (("observation.state", {"names": ["y", "x", "z"]}), r"names \['x', 'y', 'z'\] against"),
        ((v21.WRIST, {"shape": [48, 32, 3]}), r"wrist \(shape \[48, 64, 3\] against \[48, 32, 3\]"),
        (("action", {"dtype": "int64"}), r"action \(float32 against int64\)"),
    ],
)
def test_datasets_that_differ_are_not_merged(old, tmp_path, difference, message):
    more = difference if isinstance(difference, dict) else {}
    other = v21.make(tmp_path / "other", lengths=(4,), **{"cameras": CAMERAS, **more})
    if isinstance(difference, tuple):
        change(other, difference[0], **difference[1])
    with pytest.raises((DatasetError, FeatureMismatchError), match=message) as caught:
        edit.merge([old, other], tmp_path / "out")
    assert str(old) in str(caught.value)
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_video_and_an_image_feature_are_not_merged(old, tmp_path):
    other = v21.make(tmp_path / "other", cameras=CAMERAS, lengths=(4,))
    path = other / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column(v21.FRONT, table[v21.WRIST]), path)
    change(other, v21.FRONT, dtype="image")
    with pytest.raises(FeatureMismatchError, match=r"front \(video against image\)"):
        edit.merge([old, other], tmp_path / "out")


def test_remove_features(root, tmp_path):
    made = edit.remove_features(root, tmp_path / "out", [v21.FRONT, "next.reward"])
    dataset = DatasetReader.open(made.folder)
    assert not {v21.FRONT, "next.reward"} & {*dataset.features, *stats_of(made.folder)}
    assert v21.WRIST in dataset.features
    assert not (made.folder / "videos").exists()
    assert info_of(made.folder)["video_path"] is None
    table = pq.read_table(made.folder / "data/chunk-000/file-000.parquet")
    assert "next.reward" not in table.column_names
    described = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(described) == table.column_names
    before = DatasetReader.open(root)
    np.testing.assert_array_equal(dataset.read()["action"], before.read()["action"])
    np.testing.assert_array_equal(
        dataset.read_frames(v21.WRIST, np.arange(44)), before.read_frames(v21.WRIST, np.arange(44))
    )


def test_columns_that_are_no_numbers_are_kept(new, tmp_path):
    root = tmp_path / "annotated"
    convert(new, root, repack=True)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    language = [[{"role": "user", "content": f"say {row}"}] * (row % 3) for row in range(44)]
    pair = [[f"a {row}", f"b {row}"] for row in range(44)]
    pq.write_table(
        table.append_column("language_events", [language])
        .append_column("pair", [pair])
        .append_column("undeclared", [list(range(44))]),
        path,
    )
    info = info_of(root)
    info["features"]["language_events"] = {"dtype": "language", "shape": [1], "names": None}
    info["features"]["pair"] = {"dtype": "string", "shape": [2], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    made = edit.delete_episodes(root, tmp_path / "out", [0])
    kept = pq.read_table(made.folder / "data/chunk-000/file-000.parquet")
    assert kept["language_events"].to_pylist() == language[14:]
    assert kept["pair"].to_pylist() == pair[14:]
    assert info_of(made.folder)["features"]["language_events"]["dtype"] == "language"
    assert "undeclared" not in kept.column_names
    assert made.notes == ["column 'undeclared' is not declared in meta/info.json; it is not read"]


def test_rename_a_task(root, tmp_path):
    made = edit.rename_tasks(root, tmp_path / "out", {"pick": "pick the cube"})
    dataset = DatasetReader.open(made.folder)
    assert dataset.tasks == ["pick the cube", "unused", "place"]
    assert dataset.metadata.episodes.tasks == (("pick the cube",), ("place",), ("pick the cube",))
    np.testing.assert_array_equal(
        dataset.read([]).task_index, DatasetReader.open(root).read([]).task_index
    )


def test_renaming_into_a_task_that_exists_unites_them(root, tmp_path):
    made = edit.rename_tasks(root, tmp_path / "out", {"place": "pick"})
    dataset = DatasetReader.open(made.folder)
    assert dataset.tasks == ["pick", "unused"]
    assert info_of(made.folder)["total_tasks"] == 2
    assert dataset.metadata.episodes.tasks == (("pick",), ("pick",), ("pick",))
    assert (dataset.read([]).task_index == 0).all()
    swapped = edit.rename_tasks(root, tmp_path / "swapped", {"place": "pick", "pick": "place"})
    dataset = DatasetReader.open(swapped.folder)
    assert dataset.tasks == ["place", "unused", "pick"]
    assert dataset.metadata.episodes.tasks == (("place",), ("pick",), ("place",))


def test_modify_tasks(root, tmp_path):
    made = edit.modify_tasks(root, tmp_path / "one", "stack")
    dataset = DatasetReader.open(made.folder)
    assert dataset.tasks == ["unused", "stack"]
    assert (dataset.read([]).task_index == 1).all()
    made = edit.modify_tasks(root, tmp_path / "two", "stack", {2: "pick"})
    assert DatasetReader.open(made.folder).metadata.episodes.tasks == (
        ("stack",),
        ("stack",),
        ("pick",),
    )
    made = edit.modify_tasks(root, tmp_path / "three", episode_tasks={0: "fold"})
    dataset = DatasetReader.open(made.folder)
    assert dataset.tasks == ["pick", "unused", "place", "fold"]
    tasks = [dataset.tasks[index] for index in dataset.read([]).task_index]
    assert tasks == ["fold"] * 14 + ["place"] * 9 + ["pick"] * 21


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, o: edit.delete_episodes(r, o, [1, 5]), r"has no episode 5; there are: 0 to 2"),
        (lambda r, o: edit.delete_episodes(r, o, [0, 1, 2]), r"no episode would be left"),
        (lambda r, o: edit.delete_episodes(r, o, []), r"no episode is given"),
        (lambda r, o: edit.remove_features(r, o, ["force"]), r"has no feature 'force'; there are"),
        (lambda r, o: edit.remove_features(r, o, ["timestamp"]), r"'timestamp' is part of every"),
        (
            lambda r, o: edit.remove_features(r, o, list(DatasetReader.open(r).features)),
            r"no feature would be left",
        ),
        (lambda r, o: edit.rename_tasks(r, o, {"fold": "x"}), r"has no task 'fold'.*'pick'"),
        (lambda r, o: edit.rename_tasks(r, o, {"pick": " "}), r"must not be empty"),
        (lambda r, o: edit.modify_tasks(r, o), r"no task is given"),
        (lambda r, o: edit.modify_tasks(r, o, None, {9: "x"}), r"has no episode 9"),
        (lambda r, o: edit.merge([], o), r"nothing to merge"),
        (lambda r, o: edit.merge([r, r / "nowhere"], o), r"nowhere: the folder does not exist"),
        (lambda r, o: edit.delete_episodes(r, r, [0]), r"exists; give the name of a new folder"),
    ],
)
def test_mistakes_are_one_clear_error(new, tmp_path, call, message):
    with pytest.raises(DatasetError, match=message):
        call(new, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
