"""Damaged, foreign and hostile datasets: oddities are reported, damage is one clear error."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def edit_info(root, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_table(path, change) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def set_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def fails(root, *fragments) -> None:
    with pytest.raises(DatasetError) as caught:
        DatasetReader.open(root).read()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_missing_root(tmp_path):
    fails(tmp_path / "nowhere", "nowhere", "does not exist")


def test_folder_without_info_says_what_a_dataset_looks_like(tmp_path):
    fails(tmp_path, "meta/info.json", "give the folder that holds meta/ and data/")


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.jsonl", "meta/episodes.jsonl"])
def test_corrupt_json_names_the_file(make_v21, name):
    root = make_v21()
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: len(content) // 2] + b"\x00")
    fails(root, name)


@pytest.mark.parametrize("text", ["[]", '"x"', "null"])
def test_info_must_be_an_object(make_v30, text):
    root = make_v30()
    (root / "meta/info.json").write_text(text)
    fails(root, "must hold a JSON object")


def test_corrupt_statistics_name_the_file(make_v30):
    root = make_v30()
    (root / "meta/stats.json").write_text('{"action": 3}')
    with pytest.raises(DatasetError, match=re.escape("meta/stats.json")):
        _ = DatasetReader.open(root).stats


@pytest.mark.parametrize("version", ["v1.6", "v4.0", None, 3])
def test_unsupported_version_names_the_readable_ones(make_v30, version):
    root = make_v30(codebase_version=version)
    fails(root, repr(version), "v2.0, v2.1, v3.0")


@pytest.mark.parametrize("fps", [0, -5, "30", None, True])
def test_bad_frame_rate(make_v30, fps):
    fails(make_v30(fps=fps), "fps must be a positive number")


@pytest.mark.parametrize("name", [DATA, EPISODES, "meta/tasks.parquet"])
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_truncated_parquet_names_the_file(make_v30, name, keep):
    root = make_v30()
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    fails(root, name, "damaged")


def test_flipped_bytes_in_a_page_name_the_file(make_v30):
    root = make_v30()
    path = root / "data/chunk-000/file-001.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    fails(root, "file-001.parquet", "damaged")


def test_missing_data_file_is_named(make_v30):
    root = make_v30()
    (root / "data/chunk-000/file-001.parquet").unlink()
    fails(root, "file-001.parquet is missing")


def test_missing_episodes_metadata_of_v21(make_v21):
    root = make_v21()
    (root / "meta/episodes.jsonl").unlink()
    fails(root, "episodes.jsonl is missing")


def test_fewer_rows_than_the_metadata_says(make_v30):
    root = make_v30()
    edit_table(root / DATA, lambda table: table[:7])
    fails(root, DATA, "has 7 rows, the episodes metadata says 8")


def test_more_rows_than_the_metadata_says(make_v21):
    root = make_v21()
    path = root / "data/chunk-000/episode_000001.parquet"
    edit_table(path, lambda table: pa.concat_tables([table, table[:1]]))
    fails(root, "episode_000001.parquet", "has 6 rows, the episodes metadata says 5")


def test_episode_lengths_that_do_not_match_the_rows(make_v30):
    root = make_v30()
    edit_table(root / EPISODES, lambda table: set_column(table, "length", [4, 4, 2]))
    fails(root, DATA, "rows of episode 0 disagree", "(4 frames)")


def test_rows_of_an_unfinished_save_are_only_reported(make_v30, episode):
    root = make_v30()
    edit_table(root / EPISODES, lambda table: table[:2])
    edit_table(root / DATA, lambda table: pa.concat_tables([table, episode(2)]))
    dataset = DatasetReader.open(root)
    np.testing.assert_array_equal(dataset.read()["action"], np.arange(8))
    findings = "\n".join(dataset.findings)
    assert f"{DATA} holds 2 rows of a save that was cut short" in findings
    assert "data/chunk-000/file-001.parquet belongs to no episode" in findings
    assert "total_episodes 3, there are 2" in findings


@pytest.mark.parametrize(
    "template",
    [
        "../outside/file-{file_index:03d}.parquet",
        "data/../../file-{file_index:03d}.parquet",
        "/etc/file-{file_index:03d}.parquet",
        "data/{file_index.__class__}.parquet",
        "data/{file_index!r}.parquet",
        "data/{file_index:>99999999999}.parquet",
        "data/{nothing}.parquet",
        "data/{video_key}.parquet",
        "data/{file_index",
        "",
        None,
        7,
    ],
)
def test_path_templates_cannot_leave_the_root_or_do_anything_else(make_v30, template):
    fails(make_v30(data_path=template), "data_path")


def test_video_key_cannot_leave_the_root(make_v30):
    root = make_v30(video_path="videos/{video_key}/file-{file_index:03d}.mp4")
    video = {"dtype": "video", "shape": [4, 4, 3]}
    edit_info(root, lambda info: info["features"].update({"..": video}))
    fails(root, "video_path", "leaves the dataset's folder")


def test_declared_features_without_files_are_reported_and_left_out(make_v30):
    root = make_v30()
    extra = {
        "observation.images.top": {"dtype": "video", "shape": [4, 4, 3]},
        "ghost": {"dtype": "float32", "shape": [1]},
    }
    edit_info(root, lambda info: info["features"].update(extra))
    edit_info(root, lambda info: info["features"].pop("note"))
    dataset = DatasetReader.open(root)
    assert dataset.findings == [
        "camera 'observation.images.top' is declared but meta/info.json has no video_path; "
        "it is left out",
        "feature 'ghost' is declared but has no column; it is left out",
        "column 'note' is not declared in meta/info.json; it is not read",
    ]
    assert list(dataset.read().arrays) == ["observation.state", "action", "next.done", "grid"]


def test_column_missing_in_a_later_file(make_v30):
    root = make_v30()
    edit_table(root / "data/chunk-000/file-001.parquet", lambda table: table.drop(["action"]))
    fails(root, "file-001.parquet", "lacks the column 'action'")


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("observation.state", [[1.0], [1.0]], "rows hold 1 values, declared shape is [2]"),
        ("observation.state", [[1.0], [1.0, 2.0]], "rows differ in length, from 1 to 2"),
        ("observation.state", [[1.0, 2.0], None], "1 rows are missing"),
        ("next.done", [True, None], "1 values are missing"),
        ("grid", [0.5, 1.5], "rows hold 1 values"),
        ("action", ["a", "b"], "stored as string"),
        ("action", [b"a", b"b"], "stored as binary"),
        ("action", [{"x": 1.0}, {"x": 2.0}], "stored as struct"),
        ("note", [1, 2], "declared as text"),
        ("task_index", [0.5, 1.0], "cannot hold"),
    ],
)
def test_columns_that_do_not_fit_their_declaration(make_v30, name, values, reason):
    root = make_v30()
    path = root / "data/chunk-000/file-001.parquet"
    edit_table(path, lambda table: set_column(table, name, values))
    fails(root, "file-001.parquet", f"column {name!r} cannot be read", reason)


def test_tasks_with_gaps_or_of_another_form(make_v30):
    root = make_v30()
    pq.write_table(
        pa.table({"task_index": [0, 2], "task": ["a", "b"]}), root / "meta/tasks.parquet"
    )
    fails(root, "task_index must run from 0 to 1")
    pq.write_table(pa.table({"task": ["a"]}), root / "meta/tasks.parquet")
    fails(root, "needs the columns task_index and task")


def test_missing_tasks_are_only_reported(make_v30):
    root = make_v30()
    (root / "meta/tasks.parquet").unlink()
    dataset = DatasetReader.open(root)
    assert dataset.tasks == []
    assert dataset.findings[0] == "meta/tasks.parquet is missing: task strings are unknown"


def test_absurd_lengths_are_an_error_not_a_crash(make_v21):
    root = make_v21()
    row = {"episode_index": 0, "tasks": [], "length": 10**15}
    (root / "meta/episodes.jsonl").write_text(json.dumps(row))
    fails(root, "does not fit into memory")


def test_info_without_features(make_v30):
    root = make_v30()
    edit_info(root, lambda info: info.pop("features"))
    fails(root, "'features' must be an object")


def test_repeated_column_name(make_v30):
    root = make_v30()
    edit_table(root / DATA, lambda table: table.append_column("action", table["action"]))
    fails(root, DATA, "several columns named 'action'")


@pytest.mark.parametrize("length", [0, -1, "x", None])
def test_senseless_episode_lengths(make_v21, length):
    root = make_v21()
    row = {"episode_index": 0, "tasks": [], "length": length}
    (root / "meta/episodes.jsonl").write_text(json.dumps(row))
    fails(root, "episodes.jsonl")


def test_bad_chunks_size(make_v21):
    root = make_v21()
    edit_info(root, lambda info: info.update(chunks_size=0))
    fails(root, "chunks_size must be a positive integer, not 0")
