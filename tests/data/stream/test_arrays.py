"""Flat columns in memory, memory-mapped and read by position: all give the same."""

import gc
import json
import os

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream import arrays
from leray.data.stream.arrays import Arrays, FileArray, MemoryArray, ingest, open_arrays
from leray.errors import DatasetError

KEYS = ["observation.state", "action", "next.reward", "next.done", "grid"]
DTYPES = [np.float32, np.float64, np.int64, np.uint8, np.bool_]


@pytest.fixture(params=["memory", "mapped", "file"])
def wrap(request, tmp_path):
    """Makes a column of each kind from values."""

    def make(values: np.ndarray):
        if request.param == "memory":
            return MemoryArray(values)
        path = tmp_path / "column.bin"
        values.tofile(path)
        if request.param == "mapped":
            return MemoryArray(np.memmap(path, values.dtype, "r", shape=values.shape))
        return FileArray(path, values.dtype, values.shape)

    return make


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 2, 3)])
def test_frames_and_runs_are_taken(wrap, dtype, shape):
    values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    column = wrap(values)
    assert column.shape == shape
    frames = np.array([49, 0, 7, 7, 30])
    taken = column.take(frames)
    assert taken.dtype == values.dtype
    np.testing.assert_array_equal(taken, values[frames])
    for length in (1, 2, 17, 50):
        starts = np.array([50 - length, 0, 0])
        runs = column.spans(starts, length)
        expected = np.stack([values[start : start + length] for start in starts])
        np.testing.assert_array_equal(runs, expected)
        runs[:] = 0  # copies: the column stays as it is
    taken[:] = 0
    np.testing.assert_array_equal(column.take(frames), values[frames])
    assert column.take(frames[:0]).shape == (0, *shape[1:])
    assert column.spans(frames[:0], 3).shape == (0, 3, *shape[1:])


def columns_of(found: Arrays) -> dict[str, np.ndarray]:
    every = np.arange(found.num_frames)
    return {name: column.take(every) for name, column in found.columns.items()}


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("megabytes", [1e-6, 1e-3, 32])  # 1 frame, some frames, all of them
def test_what_is_ingested_in_parts_is_what_is_read_at_once(
    numeric, tmp_path, monkeypatch, same, mapped, megabytes
):
    monkeypatch.setattr(arrays, "_INGEST_MB", megabytes)
    reader = DatasetReader.open(numeric.root)
    ingest(reader, KEYS, tmp_path)
    expected, found = Arrays.read(reader, KEYS), open_arrays(tmp_path, mapped=mapped)
    same(columns_of(found), columns_of(expected))
    assert found.ends.tolist() == expected.ends.tolist() == [7, 19, 23]
    for name in KEYS:
        np.testing.assert_array_equal(columns_of(found)[name], numeric.columns[name])


def test_a_dataset_without_frames_has_empty_columns(numeric, tmp_path):
    reader = DatasetReader.open(numeric.root, episodes=[])
    ingest(reader, KEYS, tmp_path)
    for found in (open_arrays(tmp_path, mapped=True), Arrays.read(reader, KEYS)):
        assert found.num_frames == 0
        assert found.columns["grid"].shape == (0, 2, 3)


@pytest.fixture
def ingested(numeric, tmp_path):
    ingest(DatasetReader.open(numeric.root), KEYS, tmp_path)
    return tmp_path


def resized(folder, name: str, change: int) -> None:
    os.truncate(folder / name, (folder / name).stat().st_size + change)


DAMAGE = {
    "a column cut": lambda folder: resized(folder, "0.bin", -1),
    "a column grown": lambda folder: resized(folder, "1.bin", 8),
    "a column empty": lambda folder: os.truncate(folder / "0.bin", 0),
    "a column missing": lambda folder: (folder / "2.bin").unlink(),
    "no index": lambda folder: (folder / "index.json").unlink(),
    "index empty": lambda folder: (folder / "index.json").write_text(""),
    "index a list": lambda folder: (folder / "index.json").write_text("[]"),
    "index without columns": lambda folder: (folder / "index.json").write_text('{"ends": []}'),
    "unknown dtype": lambda folder: (folder / "index.json").write_text(
        json.dumps({"columns": {"a": ["0.bin", "<q9", [1]]}, "ends": [1]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("mapped", [True, False])
def test_a_damaged_copy_is_one_error_that_says_what_to_do(ingested, damage, mapped):
    damage(ingested)
    with pytest.raises(DatasetError, match=r"damaged .*remove it, it is made again") as caught:
        open_arrays(ingested, mapped=mapped)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_while_it_is_read_is_an_error(ingested):
    found = open_arrays(ingested, mapped=False)
    os.truncate(ingested / "0.bin", 30)
    with pytest.raises(DatasetError, match="cut short while in use"):
        found.columns["observation.state"].take(np.arange(23))


def test_files_are_closed_with_their_columns(ingested):
    def opened():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = opened()
    found = open_arrays(ingested, mapped=False)
    assert opened() == before + len(found.columns)
    del found
    gc.collect()
    assert opened() == before
