"""Datasets made to do harm: nothing is executed, unpickled or overwritten, one line says why."""

import importlib.util
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.check.dataset import check
from leray.data.tools.repair.dataset import repair
from leray.data.video.track import read_track
from leray.errors import DatasetError

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

DATA, EPISODES, MP4 = samples.DATA_PARQUET, samples.EPISODES_PARQUET, samples.VIDEO_V3
VIDEO, PICTURE = samples.VIDEO, samples.PICTURE


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def edit_info(root, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def add_column(root, name, column) -> None:
    for number in (0, 1):
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        table = pq.read_table(path)
        place = table.column_names.index(name) if name in table.column_names else -1
        values = column(len(table))
        if place < 0:
            table = table.append_column(name, values)
        else:
            table = table.set_column(place, name, values)
        pq.write_table(table, path)


def everything(root) -> dict:
    return {p: p.read_bytes() for p in root.parent.rglob("*") if p.is_file()}


def unusable(root, *fragments) -> None:
    """Reading fails with one line, checking tells the same, and nothing changes."""
    before = everything(root)
    with pytest.raises(DatasetError) as caught:
        DatasetReader.open(root).read()
    assert "\n" not in str(caught.value)
    report = check(root, videos="full")
    assert report.exit_code == 2
    first = next(f for f in report.findings if f.blocks)
    for fragment in fragments:
        assert fragment in str(caught.value)
        assert fragment in first.message
    assert everything(root) == before


def test_another_version(v30):
    edit_info(v30, lambda info: info.update(codebase_version="v4.0"))
    unusable(v30, "codebase_version 'v4.0'", "v2.0, v2.1, v3.0")
    assert len(repair(v30)) == 1


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "path",
    [
        "../x/{file_index}",
        "/etc/{file_index}",
        "a/../../b",
        "{file_index.real}",
        "a\0b",
        "a" * 256,
        "a/" * 2000,
        "\ud800",
        "{file_index:0999999999d}",
    ],
)
def test_templates_that_leave_the_folder(v30, key, path):
    edit_info(v30, lambda info: info.update({key: path}))
    unusable(v30, f"{key} ")


@pytest.mark.parametrize("name", [DATA, EPISODES, "meta/tasks.parquet"])
def test_truncated_parquet(v30, name):
    content = (v30 / name).read_bytes()
    (v30 / name).write_bytes(content[: len(content) // 2])
    unusable(v30, name, "damaged or not a finished parquet file")


@pytest.mark.parametrize("name", ["data/chunk-000/file-001.parquet", "meta/info.json"])
def test_missing_files(v30, name):
    (v30 / name).unlink()
    unusable(v30, name.rsplit("/")[-1])


def test_a_dataset_without_any_data_file(v30):
    for path in (v30 / "data").rglob("*.parquet"):
        path.unlink()
    report = check(v30)
    assert report.exit_code == 2
    assert {f.file for f in report.findings if f.code == "data-file"} == {
        DATA,
        "data/chunk-000/file-001.parquet",
    }


@pytest.mark.parametrize("is_declared", [True, False])
def test_pickles_are_never_loaded(v30, tmp_path, is_declared):
    marker = tmp_path / "executed"
    content = pickle.dumps(Marker(marker))
    assert pickle.loads(pickle.dumps(Marker(tmp_path / "proof"))) is None
    assert (tmp_path / "proof").is_dir()  # loading it would leave a trace
    add_column(v30, "secret", lambda rows: pa.array([content] * rows))
    if is_declared:
        entry = {"dtype": "float32", "shape": [1], "names": None}
        edit_info(v30, lambda info: info["features"].update(secret=entry))
        unusable(v30, "stored as binary")
    else:
        (finding,) = [f for f in check(v30).findings if f.code == "undeclared"][:1]
        assert finding.column == "secret"
    repair(v30)
    assert not marker.exists()


def test_pickled_extension_types_are_never_loaded(v30, tmp_path):
    marker = tmp_path / "executed"
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Marker(marker)),
    }
    path = v30 / DATA
    table = pq.read_table(path)
    place = table.column_names.index("action")
    field = table.schema.field(place).with_metadata(metadata)
    pq.write_table(pa.Table.from_arrays(table.columns, schema=table.schema.set(place, field)), path)
    DatasetReader.open(v30).read()
    check(v30)
    repair(v30)
    assert not marker.exists()


def test_pickles_among_pictures(v30, tmp_path):
    marker = tmp_path / "executed"
    value = {"bytes": pickle.dumps(Marker(marker)), "path": None}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    add_column(v30, PICTURE, lambda rows: pa.array([value] * rows, kind))
    found = [f for f in check(v30).findings if f.code == "picture"]
    assert len(found) == 6
    repair(v30)
    assert not marker.exists()


def test_pictures_that_start_programs_or_fill_the_memory(v30, tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n%%EndComments\nshowpage\n"
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "png")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for content in (postscript, bomb.getvalue()):
        value = {"bytes": content, "path": None}
        add_column(v30, PICTURE, lambda rows, value=value: pa.array([value] * rows, kind))
        assert {f.code for f in check(v30).findings if f.severity == "error"} == {"picture"}
        with pytest.raises(DatasetError, match="damaged"):
            DatasetReader.open(v30).read_frames(PICTURE, [0])


@pytest.mark.parametrize(
    "shape", [[2**40], [2**31, 2**31, 2**31], [10**30], [1] * 200, [0], [-3], [1.5], ["3"], 3, None]
)
def test_shapes_that_lie(v30, shape):
    edit_info(v30, lambda info: info["features"]["action"].update(shape=shape))
    unusable(v30)


def test_a_lie_about_a_shape_is_mended_from_the_files(v30):
    edit_info(v30, lambda info: info["features"]["action"].update(shape=[5]))
    unusable(v30, "rows hold 2 values, declared shape is [5]")
    assert "meta/info.json: shape of action is [2], it was [5]" in repair(v30)
    assert check(v30).exit_code == 0


@pytest.mark.parametrize("name", [VIDEO, PICTURE])
@pytest.mark.parametrize("shape", [[2**20, 2**20, 3], [2**60, 2**60, 2**60], [32, 48], [3]])
def test_shapes_of_pictures_that_lie(v30, name, shape):
    edit_info(v30, lambda info: info["features"][name].update(shape=shape, names=None))
    report = check(v30)
    assert report.exit_code == 1
    reader = DatasetReader.open(v30)
    reader.read()
    with pytest.raises(DatasetError):
        reader.read_frames(name, [0])


@pytest.mark.parametrize("key", ["length", "episode_index", "data/file_index"])
@pytest.mark.parametrize("value", [2**62, -1, -(2**63)])
def test_absurd_numbers_in_the_episodes_metadata(v30, key, value):
    table = pq.read_table(v30 / EPISODES)
    place = table.column_names.index(key)
    values = pa.array([value, *table[key].to_pylist()[1:]])
    pq.write_table(table.set_column(place, key, values), v30 / EPISODES)
    unusable(v30)


def test_a_lie_about_a_length_takes_no_memory(v30):
    table = pq.read_table(v30 / EPISODES)
    place = table.column_names.index("length")
    values = pa.array([*table["length"].to_pylist()[:2], 10**12])
    pq.write_table(table.set_column(place, "length", values), v30 / EPISODES)
    report = check(v30, videos="full")
    assert report.exit_code == 2
    assert "has 8 rows, the episodes' lengths make 1000000000000" in report.text()
    (line,) = repair(v30, report)
    assert line.startswith("not mended: the data files hold another number of rows")
    with pytest.raises(DatasetError):
        DatasetReader.open(v30).read()


@pytest.mark.parametrize("fps", [10**400, 1e309, float("nan"), 0, -1, True, "10", None, [10]])
def test_absurd_frame_rates(v30, fps):
    edit_info(v30, lambda info: info.update(fps=fps))
    unusable(v30, "fps must be a positive number")


def test_a_wrong_frame_rate_is_an_error_that_rewrites_nothing(v30):
    edit_info(v30, lambda info: info.update(fps=30))
    before = everything(v30)
    report = check(v30)
    assert report.exit_code == 1
    assert {"timestamp", "video-rate", "video-span"} <= {f.code for f in report.findings}
    (line,) = repair(v30, report)
    assert line.startswith("not mended: frames advance at another rate than fps says")
    assert everything(v30) == before


def test_truncated_video_leaves_the_numbers_readable(v30):
    middle = int(read_track(v30 / MP4).index.position[20])
    (v30 / MP4).write_bytes((v30 / MP4).read_bytes()[:middle])
    report = check(v30)
    assert report.exit_code == 1
    assert "is cut off" in report.text()
    reader = DatasetReader.open(v30)
    reader.read()
    with pytest.raises(DatasetError, match="cut off"):
        reader.read_frames(VIDEO, [39])


def test_an_archive_in_place_of_a_file(v30):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(2**24))
    (v30 / DATA).write_bytes(bomb.getvalue())
    unusable(v30, DATA)


def test_names_that_steer_terminals(v30):
    name = "evil\x1b[2J\u202e"
    entry = {"dtype": "float32", "shape": [1], "names": None}
    edit_info(v30, lambda info: info["features"].update({name: entry}))
    text = check(v30).text()
    assert "evil\\u001b[2J\\u202e" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_links_that_lead_outside_are_not_followed_by_the_repair(v30, tmp_path):
    outside = tmp_path / "outside"
    (v30 / "data").rename(outside)
    (v30 / "data").symlink_to(outside, target_is_directory=True)
    table = pq.read_table(outside / "chunk-000/file-000.parquet")
    place = table.column_names.index("index")
    pq.write_table(
        table.set_column(place, "index", pa.array(np.zeros(32, np.int64))),
        outside / "chunk-000/file-000.parquet",
    )
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
    assert any("lies outside of the dataset's folder" in line for line in repair(v30))
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before
