"""The parts of a conversion: file sizes, statistics in bounded memory, which frames go where."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data import statistics
from leray.data.lerobot.layout import DATA_PATH
from leray.data.lerobot.series import FileNames
from leray.data.tools.convert import convert
from leray.data.tools.rewriting.clips import Clip, ClipFinder, arrange
from leray.data.tools.rewriting.parquet_files import ParquetFiles
from leray.data.tools.rewriting.rows import episode_rows
from leray.data.tools.rewriting.source import open_source
from leray.data.tools.rewriting.totals import TotalStatistics
from leray.data.tools.rewriting.videos import write_video
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

_SPEC = importlib.util.spec_from_file_location("v21", Path(__file__).with_name("v21.py"))
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)


def clip(path="a.mp4", start=0, frames=10, size=100, form=("h264",)) -> Clip:
    return Clip(Path(path), start, frames, size, is_whole=True, has_sound=False, form=form)


def test_videos_fill_files_up_to_the_limit():
    clips = [clip(f"{number}.mp4", size=40) for number in range(5)]
    files, places = arrange(clips, fps=10, limit_bytes=100)
    assert files == [clips[0:2], clips[2:4], clips[4:]]  # three would reach 120
    assert [place.file for place in places] == [0, 0, 1, 1, 2]
    assert [place.from_s for place in places] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert [place.to_s for place in places] == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_a_video_that_does_not_fit_or_is_too_large_has_its_own_file():
    clips = [clip("a"), clip("b", form=("av1",)), clip("c", form=("av1",), size=500), clip("d")]
    files, _ = arrange(clips, fps=10, limit_bytes=300)
    assert files == [[each] for each in clips]
    assert len(arrange(clips[1:3], fps=10, limit_bytes=601)[0]) == 1


def test_a_clip_is_found_and_neighbours_are_taken_together(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.FRONT])
    convert(root, tmp_path / "new")
    source = open_source(tmp_path / "new", [0, 1, 2])
    finder = ClipFinder(v21.FRONT)
    clips = [finder.find(source, position) for position in range(3)]
    assert [(each.start_frame, each.num_frames) for each in clips] == [(0, 14), (14, 9), (23, 21)]
    assert not any(each.is_whole for each in clips)
    (path,) = (tmp_path / "new").rglob("*.mp4")
    ((whole,),), _ = arrange(clips, fps=v21.FPS, limit_bytes=2**20)
    assert (whole.path, whole.num_frames, whole.is_whole) == (path, 44, True)
    assert whole.size == sum(each.size for each in clips) < path.stat().st_size
    (pair, single), _ = arrange([clips[0], clips[1], clips[0]], v21.FPS, 2**20)[0][0], None
    assert (pair.start_frame, pair.num_frames, pair.is_whole) == (0, 23, False)
    assert single == clips[0]


def test_joined_clips_show_their_frames_one_after_the_other(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.FRONT])
    convert(root, tmp_path / "new")
    source = open_source(tmp_path / "new")
    clips = [ClipFinder(v21.FRONT).find(source, position) for position in (2, 0)]
    target = tmp_path / "joined.mp4"
    encoded = write_video(clips, target, fps=v21.FPS, scratch=tmp_path / "scratch")
    assert encoded == 0
    assert not (tmp_path / "scratch").exists()
    with VideoReader(target) as joined, VideoReader(clips[0].path) as before:
        np.testing.assert_array_equal(
            joined.read(np.arange(35)), before.read([*range(23, 44), *range(14)])
        )


def test_parquet_files_roll_over_at_the_limit(tmp_path):
    rng = np.random.default_rng(0)
    files = ParquetFiles(FileNames(tmp_path, DATA_PATH, 2), limit_bytes=100_000)
    numbers = []
    with files:
        for _ in range(12):
            table = pa.table({"x": rng.normal(size=2000)})  # 16 kB that do not compress
            numbers.append(files.make_room(len(table)))
            files.append(table)
    assert numbers == [0] * 5 + [1] * 5 + [2] * 2
    paths = sorted(tmp_path.rglob("*.parquet"))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
    ]
    assert all(path.stat().st_size < 100_000 for path in paths)
    assert [pq.ParquetFile(path).num_row_groups for path in paths] == [5, 5, 2]


def test_parquet_files_of_a_failed_block_stay_unfinished(tmp_path):
    def fail() -> None:
        with ParquetFiles(FileNames(tmp_path, DATA_PATH, 2), limit_bytes=100) as files:
            files.make_room(1)
            files.append(pa.table({"x": [1]}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()


def episodes_of_numbers() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        {"wide": rng.normal(size=(50, 2, 3)), "flag": rng.random(50) < 0.3, "count": np.arange(50)}
        for _ in range(250)
    ]


@pytest.mark.parametrize(
    ("kept_bytes", "exact"),
    [
        (2**20, {"wide", "flag", "count"}),  # 600,000, 12,500 and 100,000 bytes
        (120_000, {"flag", "count"}),
        (0, set()),
    ],
)
def test_totals_are_exact_as_far_as_memory_goes(kept_bytes, exact):
    totals = TotalStatistics(kept_bytes)
    episodes = episodes_of_numbers()
    for numbers in episodes:
        totals.add(numbers, {name: statistics.compute(array) for name, array in numbers.items()})
    result = totals.result()
    for name in episodes[0]:
        wanted = statistics.compute(np.concatenate([numbers[name] for numbers in episodes]))
        assert set(result[name]) == set(wanted)
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(result[name][key], wanted[key])
            assert result[name][key].shape == wanted[key].shape
            assert result[name][key].dtype == wanted[key].dtype
        if name in exact:
            np.testing.assert_array_equal(result[name]["q01"], wanted["q01"])
        elif name == "wide":
            assert (result[name]["q01"] < wanted["q01"]).all()  # the lowest of the episodes


@pytest.mark.parametrize("group", [1, 7, 10, 44])
def test_rows_are_found_whatever_the_row_groups(tmp_path, group):
    root = v21.make(tmp_path / "old", cameras=[])
    convert(root, tmp_path / "new")
    path = tmp_path / "new/data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=group)
    metadata = open_source(tmp_path / "new").metadata
    for chosen in ([0, 1, 2], [1], [0, 2]):
        columns = ["episode_index", "action"]
        tables = list(episode_rows(metadata, np.array(chosen), columns))
        assert [table.column_names for table in tables] == [columns] * len(chosen)
        for episode, table in zip(chosen, tables, strict=True):
            wanted = v21.numbers(episode)["action"]
            np.testing.assert_array_equal(np.stack(table["action"].to_numpy()), wanted)


def test_a_remote_source_is_one_clear_error():
    with pytest.raises(DatasetError, match=r"is not a local folder.*leray dataset pull"):
        open_source("memory://bucket/dataset")
