"""Pictures by frame number, over every way in which a dataset may store them.

Each picture shows its number, so that a wrong one is always noticed.
"""

import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.image_statistics import ImageStatistics
from leray.data.lerobot.reader import DatasetReader
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, HEIGHT, WIDTH, WRIST, Camera

LENGTHS = (40, 1, 25, 30)
LONG, SHORT = dict(datasets.LONG), dict(datasets.SHORT)
AV1 = {"g": "2", "crf": "20", "preset": "12"}
KINDS = {
    "v3.0, one file, one key frame": ("v3.0", Camera(options=LONG)),
    "v3.0, files in the middle": ("v3.0", Camera(options=LONG, files=(1, 2, 1))),
    "v3.0, file for each": ("v3.0", Camera(options=SHORT, files=(1, 1, 1, 1), first=True)),
    "v3.0, AV1": ("v3.0", Camera(codec="libsvtav1", options=AV1, files=(2, 2))),
    "v3.0, jitter": ("v3.0", Camera(options=LONG, files=(3, 1), jitter_s=0.03)),
    "v3.0, png": ("v3.0", Camera("png")),
    "v3.0, jpeg, channels first": ("v3.0", Camera("jpeg", first=True)),
    "v3.0, paths": ("v3.0", Camera("path")),
    "v2.1, B-frames": ("v2.1", Camera(options=LONG)),
    "v2.1, png": ("v2.1", Camera("png", first=True)),
    "v2.0, key frames": ("v2.0", Camera(options=SHORT, first=True)),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    version, camera = KINDS[request.param]
    return datasets.make(
        tmp_path_factory.mktemp(request.param.rpartition(" ")[2]) / "dataset",
        version=version,
        lengths=LENGTHS,
        cameras={FRONT: camera, WRIST: Camera(options=SHORT, files=(2, 2))},
        data_files=(3, 1),
        row_group=13,
    )


def shown(reader: DatasetReader, camera: str, frames, **options) -> list[int]:
    pictures = reader.read_frames(camera, np.array(frames), **options)
    assert pictures.shape == (len(frames), HEIGHT, WIDTH, 3)
    assert pictures.dtype == np.uint8
    return datasets.numbers(pictures).tolist()


def test_every_frame_is_the_right_one(made):
    reader = DatasetReader.open(made.root)
    everything = np.arange(sum(LENGTHS))
    for camera in (FRONT, WRIST):
        assert shown(reader, camera, everything) == made.columns[camera].tolist()
        assert shown(reader, camera, everything[::-1]) == made.columns[camera][::-1].tolist()
    rng = np.random.default_rng(0)
    for _ in range(10):
        frames = rng.integers(0, sum(LENGTHS), rng.integers(1, 20))
        assert shown(reader, FRONT, frames) == made.columns[FRONT][frames].tolist()
    assert shown(reader, FRONT, np.zeros(0, np.int64)) == []
    reader.close()
    assert shown(reader, FRONT, [95]) == [made.columns[FRONT][95]]


@pytest.mark.parametrize("episodes", [[0], [1], [3], [1, 3], [3, 0], [0, 1, 2, 3]])
def test_some_episodes_are_counted_from_zero(made, episodes):
    reader = DatasetReader.open(made.root, episodes=episodes)
    stored = np.flatnonzero(np.isin(made.columns["episode_index"], episodes))
    frames = np.arange(len(stored))
    assert shown(reader, FRONT, frames) == made.columns[FRONT][stored].tolist()
    with pytest.raises(DatasetError, match=f"there are 0 to {len(stored) - 1}"):
        reader.read_frames(FRONT, np.array([len(stored)]))
    with pytest.raises(DatasetError, match="frames -1 to 0 were asked for"):
        reader.read_frames(FRONT, np.array([0, -1]))


def test_a_reader_travels_with_its_episodes(made):
    reader = DatasetReader.open(made.root, episodes=[1, 2])
    expected = shown(reader, FRONT, [0, 1, 25])
    copy = pickle.loads(pickle.dumps(reader))
    assert shown(copy, FRONT, [0, 1, 25]) == expected
    assert copy.episodes == [1, 2]


def test_frames_at_their_time_pass_a_tolerance(made):
    frames = np.random.default_rng(1).permutation(96)
    tolerance_s = 0.0301 if "jitter" in str(made.root) else 1e-4
    found = shown(DatasetReader.open(made.root), FRONT, frames, tolerance_s=tolerance_s)
    assert found == made.columns[FRONT][frames].tolist()


def test_jitter_is_refused_beyond_the_tolerance(tmp_path):
    cameras = {FRONT: Camera(options=LONG, jitter_s=0.03)}
    made = datasets.make(tmp_path / "dataset", lengths=LENGTHS, cameras=cameras)
    reader = DatasetReader.open(made.root, episodes=[0, 2])
    shown_at = reader_times(made.root / f"videos/{FRONT}/chunk-000/file-000.mp4")
    late = np.abs(shown_at - np.arange(96) / 10)[[*range(40), *range(41, 66)]]
    frames = np.arange(65)
    expected = made.columns[FRONT][[*range(40), *range(41, 66)]].tolist()
    assert shown(reader, FRONT, frames, tolerance_s=late.max() + 1e-5) == expected
    with pytest.raises(DatasetError, match=r"frame \d+ of episode [02] is shown at") as caught:
        reader.read_frames(FRONT, frames, tolerance_s=late.max() - 1e-4)
    assert "\n" not in str(caught.value)
    calm = np.flatnonzero(late < 0.005)
    assert shown(reader, FRONT, calm, tolerance_s=0.005) == [expected[frame] for frame in calm]


def reader_times(path) -> np.ndarray:
    with VideoReader(path) as video:
        return video.timestamps


@pytest.fixture
def copy(tmp_path):
    """A dataset to damage: one file of two long episodes, and a column of pictures."""
    return datasets.make(
        tmp_path / "dataset",
        lengths=(20, 30, 10),
        cameras={FRONT: Camera(options=SHORT, files=(2, 1)), WRIST: Camera("png")},
        data_files=(2, 1),
        row_group=7,
    )


def video_of(made, number: int = 0):
    return made.root / f"videos/{FRONT}/chunk-000/file-{number:03d}.mp4"


def refused(made, camera: str, frames, fragment: str, **options) -> None:
    with pytest.raises(DatasetError, match=fragment) as caught:
        DatasetReader.open(made.root).read_frames(camera, np.array(frames), **options)
    assert "\n" not in str(caught.value)


def test_a_video_of_another_size_is_refused(copy):
    shown_numbers = copy.columns[FRONT][:50].tolist()
    datasets.film(video_of(copy), shown_numbers, 10, Camera(options=SHORT), size=(48, 32))
    refused(copy, FRONT, [3], r"file-000\.mp4 shows 48x32x3 .*front declares 32x48x3")
    assert shown(DatasetReader.open(copy.root), FRONT, [50]) == [copy.columns[FRONT][50]]


def test_a_missing_or_empty_video_is_refused(copy):
    reader = DatasetReader.open(copy.root)
    video_of(copy, 1).unlink()
    assert shown(reader, FRONT, [0]) == [copy.columns[FRONT][0]]
    with pytest.raises(DatasetError, match=r"file-001\.mp4 cannot be opened: No such file"):
        reader.read_frames(FRONT, np.array([0, 55]))
    video_of(copy).write_bytes(b"")
    refused(copy, FRONT, [3], r"file-000\.mp4 is empty")


def test_a_video_that_lacks_its_end_gives_what_it_has(copy):
    datasets.film(video_of(copy), copy.columns[FRONT][:43].tolist(), 10, Camera(options=SHORT))
    assert shown(DatasetReader.open(copy.root), FRONT, [42]) == [copy.columns[FRONT][42]]
    refused(copy, FRONT, [42, 43], r"has 43 frames; frame 23 of episode 1 would be number 43")


def test_an_episode_that_begins_after_the_videos_end_is_refused(copy):
    """The nearest frame would be the last one, which is another episode's."""
    datasets.film(video_of(copy), copy.columns[FRONT][:20].tolist(), 10, Camera(options=SHORT))
    assert shown(DatasetReader.open(copy.root), FRONT, [19]) == [copy.columns[FRONT][19]]
    refused(copy, FRONT, [20], r"ends at 1\.900 s, before the start of episode 1 at 2\.000 s")


def test_a_video_that_is_cut_off_is_refused(copy):
    content = video_of(copy).read_bytes()
    video_of(copy).write_bytes(content[: len(content) // 2])
    refused(copy, FRONT, [40], r"file-000\.mp4 is cut off or damaged")


def rewritten(path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def test_rows_that_are_missing_give_no_pictures(copy):
    """What is not there must not come back as whatever was in memory."""
    path = copy.root / "data/chunk-000/file-000.parquet"
    rewritten(path, lambda table: table.slice(0, 44))
    assert shown(DatasetReader.open(copy.root), WRIST, [43]) == [copy.columns[WRIST][43]]
    refused(copy, WRIST, [43, 44], "has 44 rows, the episodes metadata says at least 45")
    assert shown(DatasetReader.open(copy.root), FRONT, [44]) == [copy.columns[FRONT][44]]
    refused(copy, FRONT, [44], "has 44 rows", tolerance_s=1e-4)


def test_timestamps_that_are_no_numbers_are_refused_with_a_tolerance(copy):
    path = copy.root / "data/chunk-000/file-000.parquet"

    def with_text(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("timestamp")
        return table.set_column(place, "timestamp", [[str(row) for row in range(len(table))]])

    rewritten(path, with_text)
    assert shown(DatasetReader.open(copy.root), FRONT, [3]) == [copy.columns[FRONT][3]]
    refused(copy, FRONT, [3], "column 'timestamp' cannot be read", tolerance_s=1e-4)


def test_a_picture_of_another_size_is_refused(copy):
    content = datasets.encoded(np.zeros((8, 8, 3), np.uint8), "png")

    def with_small(table: pa.Table) -> pa.Table:
        entries = table[WRIST].to_pylist()
        entries[5] = {"bytes": content, "path": None}
        place = table.schema.get_field_index(WRIST)
        return table.set_column(place, WRIST, pa.array(entries, table[WRIST].type))

    rewritten(copy.root / "data/chunk-000/file-000.parquet", with_small)
    refused(copy, WRIST, [5], f"row 5, {WRIST} is 8x8, declared are 32x48")


def test_a_path_beside_the_dataset_is_refused(copy):
    outside = copy.root.parent / "secret.png"
    outside.write_bytes(datasets.encoded(datasets.picture(1), "png"))

    def with_path(table: pa.Table) -> pa.Table:
        entries = [{"bytes": None, "path": "../secret.png"}] * len(table)
        place = table.schema.get_field_index(WRIST)
        return table.set_column(place, WRIST, pa.array(entries, table[WRIST].type))

    rewritten(copy.root / "data/chunk-000/file-000.parquet", with_path)
    refused(copy, WRIST, [0], r"path '\.\./secret\.png' leaves the dataset's folder")


def test_cameras_are_asked_for_by_name(copy):
    refused(copy, "nope", [0], f"no camera 'nope'; there are: {FRONT}, {WRIST}")


def test_the_distance_of_key_frames_is_the_videos(copy, tmp_path):
    reader = DatasetReader.open(copy.root)
    assert (reader.gop(FRONT), reader.gop(WRIST)) == (2, 1)
    cameras = {FRONT: Camera(options=LONG, files=(1, 2))}
    made = datasets.make(tmp_path / "long", lengths=(12, 30, 5), cameras=cameras)
    assert DatasetReader.open(made.root).gop(FRONT) == 12
    assert DatasetReader.open(made.root, episodes=[2]).gop(FRONT) == 35
    assert DatasetReader.open(made.root, episodes=[]).gop(FRONT) == 1


def test_more_files_than_are_kept_open(tmp_path):
    lengths = (2,) * 40
    made = datasets.make(
        tmp_path / "dataset", version="v2.1", lengths=lengths, cameras={FRONT: Camera()}
    )
    reader = DatasetReader.open(made.root)
    frames = np.random.default_rng(0).permutation(80)
    for part in np.split(frames, 4):
        assert shown(reader, FRONT, part) == made.columns[FRONT][part].tolist()


def write_stats(made, std: float) -> dict:
    gathered = ImageStatistics(3)
    for picture in DatasetReader.open(made.root).read_frames(FRONT, np.arange(60)):
        gathered.add(picture)
    exact = gathered.result()
    stored = {key: value.tolist() for key, value in exact.items()}
    if std:
        stored["std"] = np.full((3, 1, 1), std).tolist()
    (made.root / "meta/stats.json").write_text(json.dumps({FRONT: stored}))
    return exact


def test_impossible_deviations_are_recomputed_and_sound_ones_kept(copy):
    exact = write_stats(copy, std=0.0006)
    reader = DatasetReader.open(copy.root)
    assert FRONT not in reader.stats
    assert any("standard deviation below what is possible" in line for line in reader.findings)
    found = reader.image_stats(FRONT)
    for key, value in exact.items():  # episodes are short: every frame is looked at
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert reader.image_stats(FRONT) is found
    write_stats(copy, std=0.5)
    assert DatasetReader.open(copy.root).image_stats(FRONT)["std"].ravel().tolist() == [0.5] * 3


def test_a_dataset_without_frames_has_no_statistics_of_pictures(copy):
    table = pq.read_table(copy.root / "meta/episodes/chunk-000/file-000.parquet")
    shutil.rmtree(copy.root / "meta/episodes")
    (copy.root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(table.slice(0, 0), copy.root / "meta/episodes/chunk-000/file-000.parquet")
    with pytest.raises(DatasetError, match=f"has no frames: {FRONT} has no statistics"):
        DatasetReader.open(copy.root).image_stats(FRONT)


def test_places_of_videos_that_are_no_numbers_are_one_error(copy):
    path = copy.root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = f"videos/{FRONT}/from_timestamp"
    empty = pa.DictionaryArray.from_arrays(
        pa.array([None] * len(table), pa.int32()), pa.array([], pa.float64())
    )
    spoiled = table.set_column(table.column_names.index(name), name, empty)
    pq.write_table(spoiled, path)
    with pytest.raises(DatasetError, match=f"{name} must hold times >= 0 s without gaps"):
        DatasetReader.open(copy.root)
