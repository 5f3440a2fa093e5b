"""Where a dataset may lie: every spelling of a place reads the same as a local folder."""

import json
import pickle
import shutil
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.fs as arrow
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.zip import ZipFileSystem
from upath import UPath

from leray.data.lerobot.folder import is_local, open_folder
from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.cache import cached_arrays
from leray.data.stream.samples import Samples, SampleSpec
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, WRIST, Camera


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    cameras = {
        FRONT: Camera(options=dict(datasets.LONG), files=(2, 1)),
        WRIST: Camera("path"),
    }
    root = tmp_path_factory.mktemp("folder") / "some data"
    made = datasets.make(root, cameras=cameras, data_files=(1, 2), row_group=3)
    shutil.make_archive(str(root), "zip", root.parent, root.name)
    return made


@pytest.fixture(scope="module")
def memory(made):
    """The dataset in a filesystem in memory: its folder there."""
    folder = f"/{uuid.uuid4().hex}/some data"
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(made.root), folder, recursive=True)
    yield folder
    filesystem.rm(folder, recursive=True)


def places(made, memory: str) -> dict[str, tuple]:
    """Root and filesystem, by what they are called."""
    root, parent, name = str(made.root), str(made.root.parent), made.root.name
    in_memory, local = fsspec.filesystem("memory"), fsspec.filesystem("file")
    tree = arrow.SubTreeFileSystem(parent, arrow.LocalFileSystem())
    return {
        "text": (root, None),
        "path": (made.root, None),
        "file URL": (made.root.as_uri().replace("%20", " "), None),
        "local upath": (UPath(root), None),
        "fsspec local": (root, local),
        "arrow local": (root, arrow.LocalFileSystem()),
        "memory URL": (f"memory://{memory}", None),
        "memory upath": (UPath(f"memory://{memory}"), None),
        "fsspec memory": (memory, in_memory),
        "fsspec folder": (name, DirFileSystem(parent, local)),
        "fsspec folder in memory": (Path(memory).name, DirFileSystem(memory[:33], in_memory)),
        "fsspec archive": (name, ZipFileSystem(f"{root}.zip")),
        "arrow folder": (name, tree),
        "arrow folder with slash": (f"{name}/", tree),
        "arrow folder from the root": (f"/{name}", tree),
        "arrow root": ("", arrow.SubTreeFileSystem(root, arrow.LocalFileSystem())),
        "arrow over fsspec": (memory, arrow.PyFileSystem(arrow.FSSpecHandler(in_memory))),
    }


PLACES = (
    "text",
    "path",
    "file URL",
    "local upath",
    "fsspec local",
    "arrow local",
    "memory URL",
    "memory upath",
    "fsspec memory",
    "fsspec folder",
    "fsspec folder in memory",
    "fsspec archive",
    "arrow folder",
    "arrow folder with slash",
    "arrow folder from the root",
    "arrow root",
    "arrow over fsspec",
)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_reads_the_same(made, memory, place, tmp_path, monkeypatch):
    monkeypatch.setenv("LERAY_CACHE", str(tmp_path))
    root, filesystem = places(made, memory)[place]
    reader = DatasetReader.open(root, filesystem=filesystem)
    assert reader.findings == []
    assert (reader.num_episodes, reader.num_frames, reader.tasks) == (3, 23, ["pick", "place"])
    spec = SampleSpec(delta_timestamps={"action": [-0.1, 0.0, 0.1]})
    frames = np.array([22, 0, 7, 6, 19, 3])
    expected = Samples(DatasetReader.open(made.root), spec).gather(frames)
    for limit in (None, 1):
        samples = Samples(reader, spec, memory_limit_bytes=limit)
        for found in (samples, pickle.loads(pickle.dumps(samples))):
            for key, value in found.gather(frames).items():
                np.testing.assert_array_equal(value, expected[key], err_msg=key)
    assert datasets.numbers(expected[FRONT]).tolist() == made.columns[FRONT][frames].tolist()
    assert datasets.numbers(expected[WRIST]).tolist() == made.columns[WRIST][frames].tolist()
    selected = DatasetReader.open(root, filesystem=filesystem, episodes=[2])
    assert datasets.numbers(selected.read_frames(FRONT, np.array([0]))) == made.columns[FRONT][19]


def test_local_places_are_plain_paths(made, memory):
    local = {"text", "path", "file URL", "local upath", "fsspec local", "arrow local"}
    for name, (root, filesystem) in places(made, memory).items():
        folder = open_folder(root, filesystem)
        assert is_local(folder) == (name in local), name
        if name in local:
            assert Path(folder) == made.root


def test_a_file_that_changes_is_noticed_anywhere(made, memory, tmp_path, monkeypatch):
    monkeypatch.setenv("LERAY_CACHE", str(tmp_path))
    path = UPath(f"memory://{memory}") / "data/chunk-000/file-001.parquet"

    def folder():
        return cached_arrays(DatasetReader.open(f"memory://{memory}"), ["action"])

    before = folder()
    assert folder() == before
    path.write_bytes(path.read_bytes())  # of the same size
    assert folder() != before


@pytest.mark.parametrize(
    ("root", "fragment"),
    [
        ("nothing://x", "nothing://x cannot be reached: .*; give a local folder"),
        ("memory://nowhere/at/all", "no dataset at memory://.*nowhere/at/all"),
        ("/nowhere/at/all", "no dataset at /nowhere/at/all: the folder does not exist"),
    ],
)
def test_places_without_a_dataset_are_one_error(root, fragment):
    with pytest.raises(DatasetError, match=fragment) as caught:
        DatasetReader.open(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["../x/{episode_index}.parquet", "/x", "file:///x", "memory:///x", "data/../../x", "", "a\0b"],
)
@pytest.mark.parametrize("place", ["text", "memory URL", "arrow folder"])
def test_paths_of_a_dataset_do_not_leave_it(made, memory, tmp_path, template, place):
    root, filesystem = places(made, memory)[place]
    info = open_folder(root, filesystem) / "meta/info.json"
    stored = info.read_bytes()
    content = json.loads(stored)
    try:
        for name in ("data_path", "video_path"):
            info.write_text(json.dumps(content | {name: template}))
            with pytest.raises(DatasetError, match=f"{name} .* is invalid"):
                DatasetReader.open(root, filesystem=filesystem)
    finally:
        info.write_bytes(stored)


def test_a_remote_video_that_is_missing_is_one_error(made, memory):
    reader = DatasetReader.open(f"memory://{memory}")
    path = reader.root / f"videos/{FRONT}/chunk-000/file-001.mp4"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(DatasetError, match=r"file-001\.mp4 cannot be read") as caught:
            reader.read_frames(FRONT, np.array([22]))
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(content)
