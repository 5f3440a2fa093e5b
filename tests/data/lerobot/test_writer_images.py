"""Images: PNG files inside the data files, exact to the bit."""

import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from leray.data.features import Feature, Features
from leray.data.image_statistics import ImageStatistics
from leray.data.lerobot import pictures
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import FeatureMismatchError

FEATURES = Features(
    {
        "action": Feature("float32", (1,)),
        "last": Feature("image", (5, 7, 3), ("height", "width", "channels")),
        "first": Feature("image", (3, 5, 7), ("channels", "height", "width")),
        "grey": Feature("image", (5, 7, 1), ("height", "width", "channels")),
        "alpha": Feature("image", (5, 7, 4), ("height", "width", "channels")),
    }
)
DATA = "data/chunk-000/file-000.parquet"


def make_episode(length: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    shapes = {name: f.shape for name, f in FEATURES.items() if f.is_visual}
    return {
        "action": rng.normal(size=length).astype(np.float32),
        **{n: rng.integers(0, 256, (length, *s), dtype=np.uint8) for n, s in shapes.items()},
    }


def create(root, features=FEATURES, **options) -> DatasetWriter:
    return DatasetWriter.create(root, fps=10, features=features, **options)


def test_images_come_back_exactly(tmp_path):
    episodes = [make_episode(n, seed) for seed, n in enumerate((4, 1, 40))]
    with create(tmp_path / "d") as writer:
        for episode in episodes[:2]:
            writer.add_episode(episode, "t")
        reused = {name: values[0].copy() for name, values in episodes[2].items()}
        for frame in range(40):
            for name, values in episodes[2].items():
                reused[name] = np.array(values[frame])
            writer.add_frame(reused, "t")
            for picture in reused.values():
                picture[...] = 0
        writer.save_episode()
    dataset = DatasetReader.open(tmp_path / "d")
    assert dataset.findings == []
    for name in dataset.cameras:
        whole = np.concatenate([episode[name] for episode in episodes])
        wanted = np.moveaxis(whole, 1, -1) if name == "first" else whole
        np.testing.assert_array_equal(dataset.read_frames(name, np.arange(45)), wanted)


def test_storage_is_that_of_the_format(tmp_path):
    episode = make_episode(3)
    with create(tmp_path / "d") as writer:
        writer.add_episode(make_episode(2, 1), "t")
        writer.add_episode(episode, "t")
    file = pq.ParquetFile(tmp_path / "d" / DATA)
    assert [file.metadata.row_group(group).num_rows for group in range(2)] == [2, 3]
    assert file.schema_arrow.field("last").type == pa.struct(
        [("bytes", pa.binary()), ("path", pa.string())]
    )
    described = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert described["last"] == {"_type": "Image"}
    rows = file.read_row_group(1)["last"].to_pylist()
    assert [row["path"] for row in rows] == [f"frame-{n:06d}.png" for n in range(3)]
    for row, picture in zip(rows, episode["last"], strict=True):
        with Image.open(BytesIO(row["bytes"])) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), picture)
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert info["video_path"] is None
    assert not (tmp_path / "d/videos").exists()


def test_statistics_count_every_picture(tmp_path):
    episode = make_episode(130)
    with create(tmp_path / "d") as writer:
        writer.add_episode(episode, "t")
    exact = ImageStatistics(1)
    for picture in episode["grey"]:
        exact.add(picture)
    stored = json.loads((tmp_path / "d/meta/stats.json").read_text())["grey"]
    assert stored["count"] == [130]
    for key, value in exact.result().items():
        np.testing.assert_allclose(stored[key], value)


def test_resume_goes_on_and_keeps_the_statistics(tmp_path):
    root, episodes = tmp_path / "d", [make_episode(3, seed) for seed in range(2)]
    with create(root) as writer:
        writer.add_episode(episodes[0], "t")
    (root / "meta/stats.json").unlink()  # as after a kill before it was written
    with DatasetWriter.resume(root) as writer:
        writer.add_episode(episodes[1], "t")
    dataset = DatasetReader.open(root)
    whole = np.concatenate([episode["last"] for episode in episodes])
    np.testing.assert_array_equal(dataset.read_frames("last", np.arange(6)), whole)
    np.testing.assert_allclose(dataset.stats["last"]["mean"].ravel(), whole.mean((0, 1, 2)) / 255)
    assert dataset.stats["last"]["count"].tolist() == [6]


def test_unsound_statistics_of_episodes_are_replaced_by_those_of_the_pictures(tmp_path):
    root, episode = tmp_path / "d", make_episode(6)
    with create(root) as writer:
        writer.add_episode(episode, "t")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name in ("last", "first"):
        column = f"stats/{name}/std"
        tiny = pa.array([[[[0.0001]]] * 3], table[column].type)
        table = table.set_column(table.column_names.index(column), column, tiny)
    pq.write_table(table.drop_columns(["stats/alpha/mean"]), path)
    stored = json.loads((root / "meta/stats.json").read_text())
    stored["first"]["std"] = [[[0.0001]]] * 3
    (root / "meta/stats.json").write_text(json.dumps(stored))
    with DatasetWriter.resume(root) as writer:
        writer.add_episode(make_episode(1, 1), "t")
    stats = DatasetReader.open(root).stats
    assert stats["last"]["std"].min() > 0.2
    assert stats["first"]["std"].min() > 0.2
    assert stats["alpha"]["count"].tolist() == [7]


def test_cleared_frames_leave_nothing(tmp_path):
    with create(tmp_path / "d") as writer:
        for frame in range(50):
            writer.add_frame({n: v[frame] for n, v in make_episode(50, 9).items()}, "t")
        writer.clear_episode_buffer()
        writer.add_episode(make_episode(2), "t")
    dataset = DatasetReader.open(tmp_path / "d")
    picture = dataset.read_frames("last", np.arange(2))
    np.testing.assert_array_equal(picture, make_episode(2)["last"])


def test_a_picture_that_cannot_be_compressed_is_an_error_at_the_latest_at_save(
    tmp_path, monkeypatch
):
    def broken(_):
        raise MemoryError("out of memory")

    writer = create(tmp_path / "d")
    writer.add_episode(make_episode(2), "t")
    monkeypatch.setattr(pictures, "encode_png", broken)
    writer.add_frame({n: v[0] for n, v in make_episode(1).items()}, "t")
    with pytest.raises(MemoryError, match="out of memory"):
        writer.save_episode()
    monkeypatch.undo()
    writer.add_episode(make_episode(1, 1), "t")
    writer.finalize()
    assert DatasetReader.open(tmp_path / "d").num_frames == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (pa.array([1]), "must be bytes"),
        (pa.array([b"x", None]), "some are missing"),
        (pa.array([{"bytes": None, "path": "a.png"}]), "some are missing"),
        ([b"x", 3], "must be bytes"),
    ],
)
def test_pictures_without_bytes_are_refused(value, reason):
    assert pictures.is_encoded(value)
    with pytest.raises(FeatureMismatchError, match=reason):
        pictures.image_column(value)


def test_a_long_column_is_stored_in_parts(monkeypatch):
    monkeypatch.setattr(pictures, "_PART", 2)
    contents = [pictures.encode_png(np.full((2, 2, 3), n, np.uint8)) for n in range(5)]
    column = pictures.image_column([*contents, b"\xff\xd8\xff a photograph"])
    assert column.num_chunks == 3
    assert [row["bytes"] for row in column.to_pylist()][:5] == contents
    paths = [row["path"] for row in column.to_pylist()]
    assert paths == [*(f"frame-{n:06d}.png" for n in range(5)), None]
    again = pictures.image_column(column)
    assert again.equals(column)
