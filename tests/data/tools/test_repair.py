"""What follows from a dataset itself is mended, the rest is said; old files are always kept."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.check.dataset import check
from leray.data.tools.repair.dataset import repair
from leray.errors import DatasetError

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

DATA, EPISODES, MP4 = samples.DATA_PARQUET, samples.EPISODES_PARQUET, samples.VIDEO_V3
LAST = "data/chunk-000/file-001.parquet"
VIDEO, PICTURE = samples.VIDEO, samples.PICTURE


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


@pytest.fixture
def v21(tmp_path):
    return samples.build(tmp_path / "v21", "v2.1")


def digests(root) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def edit_json(path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_table(path, change) -> None:
    """Change a parquet file's table; its row groups stay."""
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    table = change(pq.read_table(path))
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table[start : start + rows])
            start += rows


def set_column(name, change):
    def changed(table):
        place = table.column_names.index(name)
        values = pa.array(change(table[name].to_pylist()), table[name].type)
        return table.set_column(place, name, values)

    return changed


def mend(root, *expected, exit_code=0) -> list[str]:
    """Repair; nothing stored is lost, a second repair finds nothing to do."""
    before = digests(root)
    lines = repair(root)
    for fragment in expected:
        assert any(fragment in line for line in lines), lines
    after = digests(root)
    assert set(before.values()) <= set(after.values())
    report = check(root, videos="full")
    assert report.exit_code == exit_code, report.text()
    if exit_code == 0:
        assert repair(root) == []
        assert digests(root) == after
    return lines


def equals_flawless(root, version) -> None:
    """Every row and every number is that of the dataset before it was damaged."""
    flawless = samples.build(root.parent / "flawless", version)
    wanted, found = DatasetReader.open(flawless).read(), DatasetReader.open(root).read()
    assert set(found.arrays) == set(wanted.arrays)
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found[name], array)
    for name in ("episode_index", "frame_index", "timestamp", "task_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert DatasetReader.open(root).tasks == DatasetReader.open(flawless).tasks
    assert DatasetReader.open(root).metadata.info == DatasetReader.open(flawless).metadata.info


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_nothing_is_done_to_a_flawless_dataset(tmp_path, version):
    root = samples.build(tmp_path / "d", version)
    before = digests(root)
    assert repair(root) == []
    assert digests(root) == before


def test_counters_and_splits(v30):
    wrong = {"total_frames": 7, "total_episodes": None, "splits": {"train": "0:9"}, "fps": 10.0}
    edit_json(v30 / "meta/info.json", lambda info: info.update(wrong))
    mend(
        v30,
        "meta/info.json: total_frames is 40, it was 7",
        "splits are {'train': '0:3'}, they were {'train': '0:9'}",
        f"the old files are in {v30 / '.leray-repair-1'}",
    )
    equals_flawless(v30, "v3.0")
    old = json.loads((v30 / ".leray-repair-1/meta/info.json").read_text())
    assert old["total_frames"] == 7


def test_splits_that_only_their_author_knows(v30):
    splits = {"train": "0:8", "test": "8:10"}
    edit_json(v30 / "meta/info.json", lambda info: info.update(splits=splits))
    report = check(v30)
    assert not any(f.repairable for f in report.findings)
    assert repair(v30, report) == []
    edit_json(v30 / "meta/info.json", lambda info: info.update(total_frames=0))
    mend(v30, "not mended: meta/info.json: which episodes each split holds", exit_code=1)
    assert json.loads((v30 / "meta/info.json").read_text())["splits"] == splits


@pytest.mark.parametrize("name", ["index", "frame_index", "timestamp"])
def test_numbers_of_rows(v30, name):
    edit_table(v30 / DATA, set_column(name, lambda v: [v[0]] * len(v)))
    mend(v30, f"data: {name} is counted anew in 1 file")
    equals_flawless(v30, "v3.0")
    assert pq.read_table(v30 / DATA)["index"].to_pylist() == list(range(32))


def test_rows_of_another_episode(v30):
    edit_table(v30 / DATA, set_column("episode_index", lambda v: [1] * len(v)))
    with pytest.raises(DatasetError):
        DatasetReader.open(v30).read()
    mend(v30, "data: episode_index is counted anew in 1 file")
    equals_flawless(v30, "v3.0")


def test_rows_that_nothing_places_are_left_alone(v30):
    edit_table(v30 / DATA, set_column("episode_index", lambda v: [0] * len(v)))
    edit_table(v30 / DATA, set_column("frame_index", lambda v: list(range(len(v)))))
    edit_table(v30 / DATA, set_column("index", lambda v: [5] * len(v)))
    before = (v30 / DATA).read_bytes()
    repair(v30)
    assert (v30 / DATA).read_bytes() == before
    edit_table(v30 / LAST, set_column("index", lambda v: [5] * len(v)))
    mend(v30, f"not mended: {DATA}: neither frame_index nor episode_index fits", exit_code=2)


def test_lengths_that_the_frames_refute_change_nothing_else(v30):
    edit_table(v30 / EPISODES, set_column("length", lambda v: [11, 21, 8]))
    before = digests(v30)
    report = check(v30)
    assert {"range", "episode_index"} <= {f.code for f in report.findings}
    lines = repair(v30, report)
    assert "not mended: the episodes metadata: the frames contradict the lengths" in "".join(lines)
    assert digests(v30)[EPISODES] == before[EPISODES]
    assert digests(v30)[DATA] == before[DATA]


@pytest.mark.parametrize("columns", [["frame_index"], ["index", "timestamp"], ["episode_index"]])
def test_columns_that_are_absent(v30, columns):
    for name in (DATA, LAST):
        edit_table(v30 / name, lambda table: table.drop(columns))
    edit_json(v30 / "meta/info.json", lambda info: [info["features"].pop(name) for name in columns])
    edit_json(v30 / "meta/stats.json", lambda stats: [stats.pop(name) for name in columns])
    mend(v30, *(f"{name} is declared" for name in columns))
    reader = DatasetReader.open(v30)
    assert reader.findings == []
    dtype = "float32" if "timestamp" in columns else "int64"
    assert reader.metadata.bookkeeping[columns[-1]].dtype == dtype
    np.testing.assert_array_equal(reader.read().frame_index[12:15], [0, 1, 2])


def test_an_added_column_is_told_to_the_datasets_library(v30):
    described = {"info": {"features": {"action": {"_type": "List"}}}}
    metadata = {"huggingface": json.dumps(described), "mine": "kept"}
    for name in (DATA, LAST):
        edit_table(
            v30 / name,
            lambda table: table.drop(["frame_index"]).replace_schema_metadata(metadata),
        )
    mend(v30)
    stored = pq.read_schema(v30 / DATA).metadata
    assert stored[b"mine"] == b"kept"
    assert json.loads(stored[b"huggingface"])["info"]["features"] == {
        "action": {"_type": "List"},
        "frame_index": {"dtype": "int64", "_type": "Value"},
    }


def test_an_absent_task_index(v21):
    path = v21 / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path).drop(["task_index"]), path)
    mend(v21, "data: task_index is counted anew in 1 file")
    equals_flawless(v21, "v2.1")
    path = v21 / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).drop(["task_index"]), path)
    assert check(v21).exit_code == 2
    lines = repair(v21)
    assert any("not mended: task_index: an episode lists several tasks" in line for line in lines)


def test_row_groups_compression_and_pictures_stay(v30):
    edit_table(v30 / DATA, set_column("index", lambda v: [0] * len(v)))
    pictures = pq.read_table(v30 / DATA)[PICTURE]
    mend(v30)
    with pq.ParquetFile(v30 / DATA) as file:
        assert [file.metadata.row_group(i).num_rows for i in (0, 1)] == [12, 20]
        assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
        assert file.read()[PICTURE].equals(pictures)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ({"task_index": [1, 0], "task": ["place", "pick"]}, "2 rows in order, 0 of them added"),
        ({"task_index": [1], "task": ["place"]}, "2 rows in order, 1 of them added"),
        ({"task_index": [0], "task": ["pick"]}, "2 rows in order, 1 of them added"),
        (None, "2 rows in order, 2 of them added"),
    ],
)
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_tasks(tmp_path, version, rows, line):
    root = samples.build(tmp_path / "d", version)
    path = root / ("meta/tasks.parquet" if version == "v3.0" else "meta/tasks.jsonl")
    path.unlink()
    if rows is not None and version == "v3.0":
        pq.write_table(pa.table(rows), path)
    elif rows is not None:
        pairs = zip(rows["task_index"], rows["task"], strict=True)
        path.write_text("\n".join(json.dumps({"task_index": i, "task": t}) for i, t in pairs))
    mend(root, line)
    equals_flawless(root, version)


def test_tasks_whose_text_stands_nowhere(v30):
    edit_table(v30 / EPISODES, set_column("tasks", lambda v: [["a", "b", "c"]] * 3))
    pq.write_table(pa.table({"task_index": [1], "task": ["place"]}), v30 / "meta/tasks.parquet")
    mend(v30, "not mended: meta/tasks.parquet: the text of some task stands nowhere", exit_code=2)


def test_tasks_with_two_texts(v30):
    rows = {"task_index": [0, 0, 1], "task": ["a", "b", "c"]}
    pq.write_table(pa.table(rows), v30 / "meta/tasks.parquet")
    mend(v30, "not mended: meta/tasks.parquet: task 0 stands there with two texts", exit_code=2)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_tasks_of_episodes(tmp_path, version):
    root = samples.build(tmp_path / "d", version)
    if version == "v3.0":
        edit_table(root / EPISODES, set_column("tasks", lambda v: [v[0], ["pick"], v[2]]))
    else:
        path = root / "meta/episodes.jsonl"
        path.write_text(path.read_text().replace('["pick", "place"]', '["pick"]'))
    mend(root, "tasks")
    assert DatasetReader.open(root).metadata.episodes.tasks[1] == ("pick", "place")


@pytest.mark.parametrize(
    "change",
    [
        set_column("dataset_from_index", lambda v: [0, 0, 0]),
        set_column("dataset_to_index", lambda v: [9, 9, 9]),
        set_column("meta/episodes/file_index", lambda v: [3, 4, 5]),
        set_column(f"videos/{VIDEO}/from_timestamp", lambda v: [0.0, 0.0, 0.0]),
        set_column(f"videos/{VIDEO}/from_timestamp", lambda v: [0.0, 1.23, 3.2]),
        set_column(f"videos/{VIDEO}/to_timestamp", lambda v: [0.0, 0.0, 0.0]),
        lambda t: t.drop(["dataset_from_index", "dataset_to_index"]),
        lambda t: t.drop(["meta/episodes/chunk_index", f"videos/{VIDEO}/to_timestamp"]),
        lambda t: t.take([2, 0, 1]),
    ],
)
def test_episodes(v30, change):
    flawless = pq.read_table(v30 / EPISODES)
    edit_table(v30 / EPISODES, change)
    mend(v30, f"{EPISODES}: ")
    mended = pq.read_table(v30 / EPISODES)
    assert set(mended.column_names) == set(flawless.column_names)
    for name in flawless.column_names:
        if name.endswith("_timestamp"):
            np.testing.assert_allclose(mended[name].to_numpy(), flawless[name].to_numpy())
        else:
            assert mended[name].to_pylist() == flawless[name].to_pylist(), name


def test_places_in_a_video_that_do_not_follow_are_left_alone(v30):
    (v30 / MP4).write_bytes(samples.film((0, 1, 2, 2)))
    edit_table(
        v30 / EPISODES, set_column(f"videos/{VIDEO}/from_timestamp", lambda v: [0.0, 0.0, 3.2])
    )
    before = (v30 / EPISODES).read_bytes()
    assert check(v30).exit_code == 1
    repair(v30)
    assert (v30 / EPISODES).read_bytes() == before


def test_features_without_data_are_dropped(v30):
    ghosts = {
        "observation.images.top": {"dtype": "video", "shape": [4, 4, 3], "names": None},
        "ghost": {"dtype": "float32", "shape": [1], "names": None},
    }
    edit_json(v30 / "meta/info.json", lambda info: info["features"].update(ghosts))
    mend(v30, "ghost is not declared any more", "images.top is not declared any more")
    equals_flawless(v30, "v3.0")


def test_features_of_a_partial_download_stay(v30):
    shutil.rmtree(v30 / "videos")
    (v30 / ".cache/leray").mkdir(parents=True)
    (v30 / ".cache/leray/pulled.json").write_text("{}")
    before = digests(v30)
    assert any("this copy was pulled" in line for line in repair(v30))
    assert digests(v30) == before


def test_features_that_only_other_files_have_stay(v30):
    edit_table(v30 / DATA, lambda table: table.drop(["note"]))
    repair(v30)
    assert "note" in json.loads((v30 / "meta/info.json").read_text())["features"]


@pytest.mark.parametrize("shape", [[64, 64, 3], [3, 64, 64]])
def test_shape_and_info_of_a_camera(v30, shape):
    def change(info):
        info["features"][VIDEO]["shape"] = shape
        if shape[0] == 3:
            info["features"][VIDEO]["names"] = ["channels", "height", "width"]
        info["features"][VIDEO]["info"] |= {"video.codec": "av1", "video.fps": 30, "mine": 1}

    edit_json(v30 / "meta/info.json", change)
    mend(v30, f"shape of {VIDEO} is", f"info of {VIDEO} is read from its files")
    feature = json.loads((v30 / "meta/info.json").read_text())["features"][VIDEO]
    assert feature["shape"] == ([3, 32, 48] if shape[0] == 3 else [32, 48, 3])
    assert feature["info"]["video.codec"] == "h264"
    assert (feature["info"]["video.fps"], feature["info"]["mine"]) == (10, 1)


def test_statistics_of_numbers_and_pictures(v30):
    flawless = json.loads((v30 / "meta/stats.json").read_text())

    def change(stats):
        stats["action"]["mean"] = [9.0, 9.0]
        stats["index"] = {}
        del stats["next.done"]
        stats[VIDEO]["std"] = [[[1e-4]]] * 3
        del stats[PICTURE]
        stats["other"] = {"min": [1]}

    edit_json(v30 / "meta/stats.json", change)
    mend(v30, "meta/stats.json: ")
    mended = json.loads((v30 / "meta/stats.json").read_text())
    assert mended.pop("other") == {"min": [1]}
    assert set(mended) == set(flawless)
    for name, entry in flawless.items():
        for key, value in entry.items():
            if name in (VIDEO, PICTURE) and key.startswith("q"):
                continue  # they lie between the levels of two halves of the picture
            # Videos are encoded: their levels are near those that were filmed.
            slack = 0.1 if name == VIDEO else 1e-9
            np.testing.assert_allclose(mended[name][key], value, atol=slack, err_msg=name + key)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_statistics_of_single_episodes(tmp_path, version):
    root = samples.build(tmp_path / "d", version)
    if version == "v3.0":
        flawless = pq.read_table(root / EPISODES)
        edit_table(
            root / EPISODES,
            lambda table: set_column(f"stats/{VIDEO}/std", lambda v: [[[[1e-4]]] * 3] * 3)(
                table.drop(["stats/action/q50"])
            ),
        )
        edit_table(root / EPISODES, set_column("stats/action/max", lambda v: [[9.0, 9.0]] * 3))
        mend(root, "statistics of 3 episodes computed anew")
        mended = pq.read_table(root / EPISODES)
        assert set(mended.column_names) == set(flawless.column_names)
        for key in ("max", "q50", "mean"):
            found, wanted = (t[f"stats/action/{key}"].to_pylist() for t in (mended, flawless))
            np.testing.assert_allclose(found, wanted, atol=1e-12)
        std = np.array(mended[f"stats/{VIDEO}/std"].to_pylist())
        assert std.shape == (3, 3, 1, 1)
        assert std.min() > 0.05
    else:
        path = root / "meta/episodes_stats.jsonl"
        flawless = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        mend(root, "meta/episodes_stats.jsonl: computed anew")
        mended = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["episode_index"] for row in mended] == [0, 1, 2]
        for row, wanted in zip(mended, flawless, strict=True):
            assert set(row["stats"]) == set(wanted["stats"])
            np.testing.assert_allclose(
                row["stats"]["grid"]["std"], wanted["stats"]["grid"]["std"], atol=1e-12
            )


def test_statistics_that_need_what_is_not_there(v30):
    edit_json(v30 / "meta/stats.json", lambda stats: stats.pop(VIDEO))
    content = (v30 / MP4).read_bytes()
    (v30 / MP4).write_bytes(content[: len(content) // 2])
    lines = mend(v30, f"not mended: statistics of {VIDEO}: ", exit_code=1)
    assert len(lines) == 1


def test_what_an_interrupted_writer_left(v30):
    extra = pq.read_table(v30 / LAST)
    place = extra.column_names.index("episode_index")
    extra = extra.set_column(place, "episode_index", pa.array([3] * len(extra)))
    table = pq.read_table(v30 / LAST)
    pq.write_table(pa.concat_tables([table, extra]), v30 / LAST)
    pq.write_table(extra, v30 / "data/chunk-000/file-002.parquet")
    (v30 / "data/chunk-000/file-003.parquet").write_bytes(b"PAR1 without a footer")
    (v30 / "meta/.info.json.77.tmp").write_text("{")
    repeated = "meta/episodes/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(v30 / EPISODES)[1:], v30 / repeated)
    stray = v30 / f"videos/{VIDEO}/chunk-000/file-009.mp4"
    stray.write_bytes(b"x")
    mend(
        v30,
        f"{LAST}: 8 rows of an interrupted save are cut off",
        "data/chunk-000/file-002.parquet is renamed to end in .orphan",
        "meta/.info.json.77.tmp is moved to .leray-repair-1",
        f"{repeated} repeats other files; it is renamed to end in .orphan",
    )
    equals_flawless(v30, "v3.0")
    assert (v30 / "data/chunk-000/file-003.parquet.orphan").is_file()
    assert stray.with_name("file-009.mp4.orphan").is_file()
    assert pq.read_table(v30 / ".leray-repair-1" / LAST).num_rows == 16


def test_pictures_of_a_recording_are_moved_aside_only_where_none_are_stored(v30, tmp_path):
    (v30 / "images/x").mkdir(parents=True)
    (v30 / "images/x/frame.png").write_bytes(b"x")
    (finding,) = [f for f in check(v30).findings if f.severity != "note"]
    assert not finding.repairable
    features = json.loads((v30 / "meta/info.json").read_text())["features"]
    del features[PICTURE]
    edit_json(v30 / "meta/info.json", lambda info: info.update(features=features))
    repair(v30)
    assert (v30 / "images.orphan/x/frame.png").read_bytes() == b"x"


def test_orphans_never_replace_each_other(v30):
    for content in (b"1", b"2", b"3"):
        (v30 / "data/chunk-000/file-007.parquet").write_bytes(content)
        repair(v30)
    names = sorted(path.name for path in (v30 / "data/chunk-000").glob("file-007*"))
    assert names == [f"file-007.parquet{end}.orphan" for end in (".2", ".3", "")]


def test_several_repairs_keep_all_versions(v30):
    for frames in (7, 8):
        edit_json(v30 / "meta/info.json", lambda info, n=frames: info.update(total_frames=n))
        repair(v30)
    for number, frames in ((1, 7), (2, 8)):
        kept = json.loads((v30 / f".leray-repair-{number}/meta/info.json").read_text())
        assert kept["total_frames"] == frames


def test_disks_without_links_get_copies(v30, monkeypatch):
    def refused(*_args, **_options):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    edit_table(v30 / DATA, set_column("index", lambda v: [0] * len(v)))
    mend(v30, "data: index is counted anew in 1 file")
    assert pq.read_table(v30 / ".leray-repair-1" / DATA)["index"].to_pylist() == [0] * 32


def test_files_that_are_links_are_replaced_not_followed(v30, tmp_path):
    shared = tmp_path / "shared.json"
    edit_json(v30 / "meta/info.json", lambda info: info.update(total_frames=7))
    (v30 / "meta/info.json").rename(shared)
    (v30 / "meta/info.json").symlink_to(shared)
    before = shared.read_bytes()
    repair(v30)
    assert shared.read_bytes() == before
    assert check(v30).exit_code == 0
    assert (v30 / ".leray-repair-1/meta/info.json").read_bytes() == before


def test_a_full_disk_stops_the_repair_with_one_line(v30, monkeypatch):

    edit_table(v30 / DATA, set_column("index", lambda v: [0] * len(v)))
    before = digests(v30)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("os.fsync", full)
        with pytest.raises(DatasetError, match=r"the repair stopped .*No space left"):
            repair(v30)
    assert set(before.values()) <= set(digests(v30).values())
    mend(v30)


def test_a_damaged_info_cannot_be_mended(v30):
    (v30 / "meta/info.json").write_text("{")
    (line,) = repair(v30)
    assert line.startswith("not mended: ")
    with pytest.raises(DatasetError, match="is no local folder"):
        repair("s3://bucket/dataset")


def test_unpaired_surrogates_in_names_survive(v30):
    edit_json(v30 / "meta/info.json", lambda info: info.update(total_frames=0, mine="\ud800"))
    mend(v30)
    assert json.loads((v30 / "meta/info.json").read_bytes())["mine"] == "\ud800"
