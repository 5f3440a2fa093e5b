"""What a check finds in metadata and data files: flawless datasets pass, each flaw is named."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.tools.check.contents import read_contents
from leray.data.tools.check.dataset import check
from leray.data.tools.check.findings import Findings, make_report
from leray.data.tools.check.rows import RowCheck
from leray.data.tools.check.tables import Piece
from leray.errors import DatasetError

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

VERSIONS = ("v2.0", "v2.1", "v3.0")
DATA, EPISODES = samples.DATA_PARQUET, samples.EPISODES_PARQUET
VIDEO, PICTURE = samples.VIDEO, samples.PICTURE


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


@pytest.fixture
def v20(tmp_path):
    return samples.build(tmp_path / "v20", "v2.0")


@pytest.fixture
def v21(tmp_path):
    return samples.build(tmp_path / "v21", "v2.1")


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
            if start < len(table):
                writer.write_table(table[start : start + rows])
            start += rows


def set_column(name, values, kind=None):
    def change(table):
        place = table.column_names.index(name)
        new = values(table[name].to_pylist()) if callable(values) else values
        column = pa.array(new, kind or table[name].type)
        return table.set_column(place, name, column)

    return change


def replaced(values, position, value) -> list:
    return [*values[:position], value, *values[position + 1 :]]


def only(report, severity, code):
    """The findings of one kind, which must be the only ones above the level of a note."""
    kinds = {kind for kind in report.counts if kind[0] != "note"}
    assert kinds <= {(severity, code)}, report.text()
    found = [f for f in report.findings if (f.severity, f.code) == (severity, code)]
    assert found, report.text()
    return found


@pytest.mark.parametrize("videos", ["fast", "full", "none"])
@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_found_in_a_flawless_dataset(tmp_path, version, videos):
    report = check(samples.build(tmp_path / "d", version), videos=videos)
    assert report.findings == []
    assert report.exit_code == 0
    assert report.summary == f"{version}, 3 episodes, 40 frames, 10 fps, 2 cameras"
    assert report.text().endswith("nothing found")


def test_nothing_is_found_in_what_our_writer_writes(tmp_path):
    axes = ("height", "width", "channels")
    features = Features(
        {
            "action": Feature("float32", (2,)),
            "next.done": Feature("bool", (1,)),
            VIDEO: Feature("video", (32, 48, 3), axes),
            PICTURE: Feature("image", (32, 48, 3), axes),
        }
    )
    rng = np.random.default_rng(0)
    with DatasetWriter.create(tmp_path / "d", fps=10, features=features) as writer:
        for length in (5, 9):
            for frame in range(length):
                values = {"action": rng.normal(size=2).astype(np.float32)}
                values["next.done"] = np.array([frame == length - 1])
                values[VIDEO] = values[PICTURE] = samples.picture(0, frame)
                writer.add_frame(values, task=f"task {length}")
            writer.save_episode()
    report = check(tmp_path / "d", videos="full")
    assert report.findings == [], report.text()


def test_progress_tells_what_is_read(v30):
    told = []
    check(v30, videos="full", progress=lambda *step: told.append(step))
    assert ("data", 2, 2) in told
    assert ("pictures", 2, 2) in told
    assert ("videos", 1, 1) in told


def test_a_check_changes_nothing(v30):
    before = {p: p.stat().st_mtime_ns for p in v30.rglob("*")}
    edit_json(v30 / "meta/info.json", lambda info: info.update(total_frames=1))
    before[v30 / "meta/info.json"] = (v30 / "meta/info.json").stat().st_mtime_ns
    check(v30, videos="full")
    assert {p: p.stat().st_mtime_ns for p in v30.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "severity", "code", "message"),
    [
        ({"total_frames": 41}, "error", "totals", "total_frames is 41, there are 40"),
        ({"total_episodes": "3"}, "error", "totals", "total_episodes is '3', there are 3"),
        ({"total_tasks": True}, "error", "totals", "total_tasks is True, there are 2"),
        ({"splits": {"train": "0:100"}}, "error", "splits", "within 0:3"),
        ({"splits": {"a": "0:2", "b": "2-3"}}, "error", "splits", "split 'b' is '2-3'"),
        ({"splits": []}, "error", "splits", "splits is []"),
        ({"splits": {}}, "error", "splits", "train should be 0:3"),
        ({"chunks_size": 0}, "warning", "info", "chunks_size is 0; it must be a positive"),
        ({"data_files_size_in_mb": "x"}, "warning", "info", "data_files_size_in_mb is 'x'"),
        ({"robot_type": 3}, "warning", "info", "robot_type is 3; it must be a text or null"),
    ],
)
def test_keys_of_info(v30, change, severity, code, message):
    edit_json(v30 / "meta/info.json", lambda info: info.update(change))
    report = check(v30)
    (finding,) = only(report, severity, code)
    assert message in finding.message
    assert finding.file == "meta/info.json"
    assert report.exit_code == 1


def test_counters_of_old_versions(v20):
    edit_json(v20 / "meta/info.json", lambda info: info.update(total_videos=2, total_chunks=0))
    messages = [f.message for f in only(check(v20), "error", "totals")]
    assert messages == ["total_videos is 2, there are 3", "total_chunks is 0, there are 1"]


def test_a_fractional_frame_rate_is_noted(v30):
    edit_json(v30 / "meta/info.json", lambda info: info.update(fps=10.0))
    report = check(v30)
    assert [(f.severity, f.message) for f in report.findings] == [
        ("note", "fps is 10.0; LeRobot writes an integer")
    ]
    assert report.exit_code == 0


def features_of(root, change) -> None:
    edit_json(root / "meta/info.json", lambda info: change(info["features"]))


def test_features_without_data_and_data_without_features(v30):
    ghosts = {
        "observation.images.top": {"dtype": "video", "shape": [4, 4, 3], "names": ["a", "b", "c"]},
        "ghost": {"dtype": "float32", "shape": [1], "names": None},
    }
    features_of(v30, lambda features: features.update(ghosts) or features.pop("note"))
    report = check(v30)
    absent = [f for f in report.findings if f.code == "absent"]
    assert [(f.column, f.message) for f in absent] == [
        ("observation.images.top", "is declared but has no videos"),
        ("ghost", "is declared but has no column"),
    ]
    undeclared = [f for f in report.findings if f.code == "undeclared"]
    assert [(f.file, f.column) for f in undeclared] == [
        ("data/chunk-000/file-000.parquet", "note"),
        ("data/chunk-000/file-001.parquet", "note"),
    ]


def test_features_that_make_no_sense(v30):
    def change(features):
        features["action"]["names"] = ["x"]
        features["next.reward"]["dtype"] = "float64"
        features[VIDEO]["names"] = None
        features["timestamp"]["dtype"] = "float64"
        features["index"]["shape"] = [1, 1]
        del features["frame_index"]

    features_of(v30, change)
    report = check(v30)
    found = {(f.code, f.column, f.message) for f in report.findings if f.severity != "note"}
    assert ("feature", "action", "has 1 names for shape [2]") in found
    assert ("bookkeeping", "frame_index", "is not declared") in found
    assert ("bookkeeping", "index", "is int64[1, 1]; it must be int64[1]") in found
    notes = {(f.code, f.column, f.message) for f in report.findings if f.severity == "note"}
    assert ("bookkeeping", "timestamp", "is float64; LeRobot writes float32") in notes
    assert ("schema", "next.reward", "is stored as float, declared is float64") in notes


def test_columns_of_one_file_that_differ_from_the_rest(v30):
    edit_table(v30 / "data/chunk-000/file-001.parquet", lambda table: table.drop(["index"]))
    (finding,) = only(check(v30), "error", "schema")
    assert (finding.file, finding.column) == ("data/chunk-000/file-001.parquet", "index")
    edit_table(v30 / "data/chunk-000/file-001.parquet", lambda table: table.drop(["action"]))
    report = check(v30)
    assert report.exit_code == 2
    assert "lacks a column that other files have" in report.text()


def test_lists_of_open_length_are_noted(v30):
    path = v30 / "data/chunk-000/file-001.parquet"
    edit_table(path, set_column("action", lambda v: v, pa.list_(pa.float32())))
    (finding,) = check(v30).findings
    assert (finding.severity, finding.code, finding.column) == ("note", "schema", "action")
    assert finding.message == "is stored as lists of any length; LeRobot writes lists of 2"


def test_row_groups_are_noted(v30):
    table = pq.read_table(v30 / DATA)
    pq.write_table(table, v30 / DATA)
    (finding,) = check(v30).findings
    assert finding.code == "row-groups"
    assert "has 1 row groups for 2 episodes" in finding.message


def test_files_above_the_size_limit_are_noted(v30, monkeypatch):
    limits = {"data_files_size_in_mb": 1, "video_files_size_in_mb": 1}
    edit_json(v30 / "meta/info.json", lambda info: info.update(limits))
    noise = np.random.default_rng(0).bytes(2**20 + 1)
    edit_table(v30 / DATA, lambda t: t.replace_schema_metadata({"filler": noise.hex()}))
    (finding,) = check(v30).findings
    assert (finding.severity, finding.code, finding.file) == ("note", "file-size", DATA)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index", "1 rows hold another number than their place makes it: 7 at frame 4, not 4"),
        ("frame_index", "1 rows hold another number than their place makes it: 7 at frame 4"),
    ],
)
def test_numbers_of_rows(v30, name, message):
    edit_table(v30 / DATA, set_column(name, lambda v: replaced(v, 4, 7)))
    report = check(v30)
    (finding,) = [f for f in report.findings if f.code == name]
    assert message in finding.message
    assert (finding.file, finding.episode, finding.column) == (DATA, 0, name)
    assert finding.repairable
    assert report.exit_code == 1


def test_rows_of_another_episode_make_a_dataset_unusable(v30):
    edit_table(v30 / DATA, set_column("episode_index", lambda v: replaced(v, 4, 1)))
    report = check(v30)
    (finding,) = [f for f in report.findings if f.code == "episode_index"]
    assert finding.episode == 0
    assert finding.repairable  # frame_index tells where the rows belong
    assert report.exit_code == 2


def test_rows_whose_place_nothing_tells_cannot_be_mended(v30):
    edit_table(v30 / DATA, set_column("episode_index", lambda v: replaced(v, 4, 1)))
    edit_table(v30 / DATA, set_column("frame_index", lambda v: replaced(v, 4, 0)))
    found = [f for f in check(v30).findings if f.code in ("episode_index", "frame_index")]
    assert [f.repairable for f in found] == [False, False]


@pytest.mark.parametrize(
    ("change", "message", "repairable"),
    [
        (lambda k, t: t + 0.1, "begin at 0.1 s instead of 0, and go on regularly", True),
        (
            lambda k, t: t + 0.004 * (k == 5),
            "differ by up to 0.00399995 s from frame_index / fps (frame 5)",
            True,
        ),
        (lambda k, t: 0.3 if k == 5 else t, "frame 5 is not later than the one before", True),
        (lambda k, t: t / 2, "advance by 0.05 s, 10 fps make it 0.1 s", False),
        (lambda k, t: float("nan") if k == 2 else t, "some are not finite", True),
    ],
)
def test_timestamps(v30, change, message, repairable):
    def mend(values):
        first = [change(k, t) for k, t in enumerate(values[:12])]
        return [*first, *values[12:]]

    edit_table(v30 / DATA, set_column("timestamp", mend))
    (finding,) = [f for f in check(v30).findings if f.code == "timestamp"]
    assert message in finding.message
    assert (finding.severity, finding.episode) == ("error", 0)
    assert finding.repairable == repairable


def test_the_tolerance_is_the_callers(v30):
    def shift(values):
        return [t + 0.004 if k == 5 else t for k, t in enumerate(values)]

    edit_table(v30 / DATA, set_column("timestamp", shift))
    assert "timestamp" in {f.code for f in check(v30, tolerance_s=0.003).findings}
    assert "timestamp" not in {f.code for f in check(v30, tolerance_s=0.005).findings}


def test_long_episodes_are_not_blamed_for_the_precision_of_float32(v30):
    start, count = 100_000, 28  # 10000 s, where steps of float32 are 0.00098 s
    exact = np.arange(start, start + count) / 10
    stored = exact.astype(np.float32)
    assert np.abs(stored - exact).max() > 1e-4
    findings = Findings()
    rows = RowCheck(read_contents(v30, findings), findings, 1e-4)
    rows.take(Piece(0, start, count, is_last=True, file="f", is_alone=True), {"timestamp": stored})
    assert "timestamp" not in {finding.code for finding in findings.kept}


def test_task_indices(v30):
    edit_table(v30 / DATA, set_column("task_index", lambda v: replaced(v, 0, 5)))
    (finding,) = [f for f in check(v30).findings if f.code == "task_index"]
    assert finding.message == "5 is in no row of the tasks table"
    edit_table(v30 / DATA, set_column("task_index", lambda v: replaced(v, 0, 1)))
    (finding,) = [f for f in check(v30).findings if f.code == "episode-tasks"]
    assert finding.message == "its tasks lack 'place', which its frames have"
    assert finding.episode == 0


def test_tasks_that_no_frame_has_are_noted(v21):
    path = v21 / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["tasks"].append("valid")
    path.write_text("\n".join(map(json.dumps, rows)))
    (finding,) = check(v21).findings
    assert (finding.severity, finding.code, finding.episode) == ("note", "episode-tasks", 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"task_index": [1, 0], "task": ["place", "pick"]}, "rows are not in the order"),
        ({"task_index": [0, 1], "task": ["pick", "pick"]}, "'pick' stands there 2 times"),
        ({"task_index": [0, 1], "task": ["pick", " "]}, "task 1 is empty"),
        ({"task_index": [0, 2], "task": ["pick", "place"]}, "must run from 0 to 1 without gaps"),
    ],
)
def test_tasks(v30, rows, message):
    path = v30 / "meta/tasks.parquet"
    pq.write_table(pa.table(rows, schema=samples.task_table().schema), path)
    found = [f for f in check(v30).findings if f.code == "tasks"]
    assert message in found[0].message


def test_tasks_must_be_a_pandas_index(v30):
    path = v30 / "meta/tasks.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    (finding,) = only(check(v30), "error", "tasks")
    assert finding.message == "the text is no pandas index: LeRobot finds no task in it"


def test_missing_tasks(v30):
    (v30 / "meta/tasks.parquet").unlink()
    report = check(v30)
    assert report.exit_code == 1
    assert [f.code for f in report.findings if f.severity == "error"] == ["tasks"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (set_column("dataset_from_index", [0, 13, 32]), "range", "is 13, the lengths before make"),
        (set_column("dataset_to_index", [12, 32, 0]), "range", "is 0, the lengths before make it"),
        (lambda t: t.drop(["dataset_to_index"]), "episodes", "the column is missing"),
        (set_column("meta/episodes/file_index", [0, 0, 1]), "episodes", "must be 0 as in the file"),
        (lambda t: t.take([1, 0, 2]), "episodes", "rows are not in the order of episode_index"),
    ],
)
def test_episodes(v30, change, code, message):
    edit_table(v30 / EPISODES, change)
    found = [f for f in check(v30).findings if f.code == code]
    assert any(message in f.message for f in found)
    assert all(f.repairable for f in found)
    assert check(v30).exit_code == 1


def test_episode_indices_with_gaps(v30):
    edit_table(v30 / EPISODES, set_column("episode_index", [0, 1, 3]))
    report = check(v30)
    found = [f for f in report.findings if f.code == "episodes"]
    assert "row 2 is episode 3, expected is 2" in found[0].message
    assert not found[0].repairable
    assert report.exit_code == 2  # the rows still say 2


def test_data_files_that_hold_other_episodes_than_listed(v30):
    edit_table(v30 / EPISODES, set_column("data/file_index", [0, 1, 1]))
    report = check(v30)
    assert report.exit_code == 2
    assert {"rows", "episode_index"} <= {f.code for f in report.findings}


def test_data_files_out_of_order(v30):
    swap = {0: 1, 1: 0}
    edit_table(v30 / EPISODES, set_column("data/file_index", [1, 1, 0]))
    paths = [v30 / f"data/chunk-000/file-{swap[n]:03d}.parquet" for n in (0, 1)]
    first, second = (path.read_bytes() for path in paths)
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    (finding,) = only(check(v30), "error", "file-order")
    assert "holds earlier episodes than data/chunk-000/file-000.parquet" in finding.message


def test_fewer_and_more_rows_than_the_lengths(v30):
    edit_table(v30 / DATA, lambda table: table[:30])
    report = check(v30)
    (finding,) = [f for f in report.findings if f.code == "rows"]
    assert finding.message == "has 30 rows, the episodes' lengths make 32"
    assert report.exit_code == 2


def test_what_an_interrupted_writer_leaves(v30):
    extra = pq.read_table(v30 / "data/chunk-000/file-001.parquet")
    extra = set_column("episode_index", [3] * len(extra))(extra)
    path = v30 / "data/chunk-000/file-001.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(path), extra]), path)
    pq.write_table(extra, v30 / "data/chunk-000/file-002.parquet")
    (v30 / "meta/.info.json.77.tmp").write_text("{")
    (v30 / "images/x").mkdir(parents=True)
    second = v30 / "meta/episodes/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(v30 / EPISODES)[1:], second)
    report = check(v30)
    found = {(f.code, f.file) for f in report.findings if f.severity != "note"}
    assert found == {
        ("leftover", "data/chunk-000/file-001.parquet"),
        ("orphan", "data/chunk-000/file-002.parquet"),
        ("leftover", "meta/.info.json.77.tmp"),
        ("leftover", "images"),
        ("leftover", "meta/episodes/chunk-000/file-001.parquet"),
    }
    assert DatasetReader.open(v30).read(["action"])["action"].shape == (40, 2)
    assert report.exit_code == 1


def test_files_of_a_camera_that_is_not_declared_are_left_alone(v20):
    stray = v20 / "videos/chunk-000/observation.images.lost/episode_000000.mp4"
    stray.parent.mkdir()
    stray.write_bytes(b"x")
    beside = v20 / f"videos/chunk-000/{VIDEO}/episode_000009.mp4"
    beside.write_bytes(b"x")
    found = only(check(v20), "warning", "orphan")
    assert [(Path(f.file).name, f.repairable) for f in found] == [
        ("episode_000009.mp4", True),
        ("episode_000000.mp4", False),
    ]


def test_numbers_that_are_none(v30):
    def change(values):
        values[3], values[20] = [1.0, float("nan")], [float("inf"), float("-inf")]
        return values

    edit_table(v30 / DATA, set_column("action", change))
    (finding,) = [f for f in check(v30).findings if f.code == "not-finite"]
    assert finding.message == (
        "1 NaN and 2 infinite values in 2 episodes, the first in episode 0, frame 3"
    )
    assert (finding.severity, finding.column) == ("warning", "action")


def test_elements_that_never_change_and_empty_texts_are_noted(v30):
    for name in (DATA, "data/chunk-000/file-001.parquet"):
        state = set_column("observation.state", lambda v: [[0.5, a, b] for _, a, b in v])
        edit_table(v30 / name, state)
        edit_table(v30 / name, set_column("next.reward", lambda v: [0.0] * len(v)))
    edit_table(v30 / DATA, set_column("note", lambda v: replaced(v, 0, "")))
    found = [f for f in check(v30).findings if f.code in ("constant", "text")]
    assert {f.severity for f in found} == {"note"}
    notes = {f.column: f.message for f in found}
    assert notes["observation.state"] == "1 of 3 elements never change: pan = 0.5"
    assert notes["next.reward"] == "is always 0"
    assert notes["note"] == "1 texts are empty"


def test_a_damaged_column_does_not_hide_the_others(v30):
    path = v30 / "data/chunk-000/file-001.parquet"
    edit_table(path, set_column("action", ["x"] * 8, pa.string()))
    edit_table(path, set_column("frame_index", list(range(1, 9))))
    codes = {(f.code, f.column) for f in check(v30).findings if f.severity == "error"}
    assert {("column", "action"), ("frame_index", "frame_index")} <= codes


def test_remote_folders_are_refused():
    for root in ("s3://bucket/dataset", "https://host/dataset", "memory://x"):
        with pytest.raises(DatasetError, match=r"is no local folder; .*leray dataset pull"):
            check(root)


def test_a_report_folds_repeats_and_orders_by_weight():
    findings = Findings()
    for number in range(1005):
        findings.note("constant", f"note {number}")
    findings.warning("text", "a\nwarning \x1b[31m\ud800")
    findings.error("totals", "an error", file="meta/info.json", repairable=True)
    report = make_report(Path("d"), "v3.0", findings)
    assert [f.severity for f in report.findings[:3]] == ["error", "warning", "note"]
    assert len(report.findings) == 1002
    text = report.text()
    assert "and 1,000 more" in text
    assert "a warning \\u001b[31m\\ud800" in text
    assert text.splitlines()[1] == "1 error, 1 warning, 1,005 notes"
    assert "meta/info.json: an error [*]" in text
    assert json.loads(json.dumps(report.to_json()))["counts"][0] == {
        "severity": "error",
        "code": "totals",
        "count": 1,
    }
