"""Encoded pictures of a column in one flat file."""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.cache import cached_images
from leray.data.stream.image_cache import ImageCache, ingest_images
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import WRIST, Camera


@pytest.fixture(params=["png", "jpeg", "path"])
def made(request, tmp_path):
    return datasets.make(
        tmp_path / "dataset", cameras={WRIST: Camera(request.param)}, data_files=(1, 2), row_group=3
    )


def opened(made, folder, **options) -> ImageCache:
    reader = DatasetReader.open(made.root, **options)
    folder.mkdir()
    ingest_images(reader, WRIST, folder)
    return ImageCache(folder, reader.features[WRIST])


def test_pictures_come_in_any_order_as_the_reader_gives_them(made, tmp_path):
    images = opened(made, tmp_path / "copy")
    frames = np.array([22, 0, 7, 7, 6, 19])
    found = images.read(frames)
    assert datasets.numbers(found).tolist() == made.columns[WRIST][frames].tolist()
    expected = DatasetReader.open(made.root).read_frames(WRIST, frames)
    np.testing.assert_array_equal(found, expected)
    assert images.read(frames[:0]).shape == (0, datasets.HEIGHT, datasets.WIDTH, 3)


def test_some_episodes(made, tmp_path):
    images = opened(made, tmp_path / "copy", episodes=[2, 0])
    stored = [*range(7), *range(19, 23)]
    assert datasets.numbers(images.read(np.arange(11))).tolist() == (
        made.columns[WRIST][stored].tolist()
    )


def test_a_copy_cut_short_is_refused(made, tmp_path):
    feature = DatasetReader.open(made.root).features[WRIST]
    for name, size in (("bytes.bin", -1), ("ends.bin", -8), ("ends.bin", -3)):
        folder = tmp_path / f"{name}{size}"
        opened(made, folder)
        os.truncate(folder / name, (folder / name).stat().st_size + size)
        with pytest.raises(DatasetError, match=r"damaged .*remove it, it is made again"):
            ImageCache(folder, feature)
    with pytest.raises(DatasetError, match="damaged"):
        ImageCache(tmp_path / "nowhere", feature)


def replace_row(made, row: int, entry) -> None:
    path = made.root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(WRIST)
    entries = table[WRIST].to_pylist()
    entries[row] = entry
    pq.write_table(table.set_column(place, WRIST, pa.array(entries, table[WRIST].type)), path)


@pytest.mark.parametrize(
    ("entry", "fragment"),
    [
        (None, "holds no picture"),
        ({"bytes": None, "path": None}, "holds no picture"),
        ({"bytes": None, "path": ""}, "holds no picture"),
        ({"bytes": None, "path": "images/nowhere.png"}, "cannot be read"),
        ({"bytes": None, "path": "../secret.png"}, "leaves the dataset's folder"),
        ({"bytes": None, "path": "/etc/passwd"}, "leaves the dataset's folder"),
        ({"bytes": None, "path": "file:///etc/passwd"}, "leaves the dataset's folder"),
        ({"bytes": None, "path": "a\0b"}, "leaves the dataset's folder"),
    ],
)
def test_a_row_without_a_picture_stops_the_copy(made, tmp_path, entry, fragment):
    (tmp_path / "secret.png").write_bytes(datasets.encoded(datasets.picture(1), "png"))
    replace_row(made, 4, entry)
    reader = DatasetReader.open(made.root)
    with pytest.raises(DatasetError, match=rf"row 4, {WRIST}.*{fragment}") as caught:
        cached_images(reader, WRIST)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=fragment):
        reader.read_frames(WRIST, np.array([11]))


def test_a_row_of_another_file_says_which_frame(made, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    replace_row(made, 4, {"bytes": file.getvalue(), "path": None})
    images = opened(made, tmp_path / "copy")
    assert images.read(np.array([10, 12])).shape[0] == 2
    with pytest.raises(DatasetError, match=r"frame 11 is 8x8, declared are 32x48"):
        images.read(np.array([11]))


def test_a_data_file_with_rows_missing_stops_the_copy(made, tmp_path):
    path = made.root / "data/chunk-000/file-001.parquet"
    reader = DatasetReader.open(made.root)
    pq.write_table(pq.read_table(path).slice(0, 14), path)
    (tmp_path / "copy").mkdir()
    with pytest.raises(DatasetError, match="has 14 rows, the episodes metadata says at least 16"):
        ingest_images(reader, WRIST, tmp_path / "copy")
