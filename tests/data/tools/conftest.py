"""A small filmed dataset, built with Arrow, PyAV and Pillow, independent of our writer."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

FILMED_LENGTHS = (30, 12)
FILMED_FPS = 10
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- 'pick' & \u2028place ☃"


def _picture(episode: int, frame: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Red counts frames: up by 7 each in the left half, down in the right; green is the episode."""
    picture = np.full((height, width, 3), (0, 60 + 100 * episode, 60), np.uint8)
    picture[:, : width // 2, 0] = 20 + 7 * frame
    picture[:, width // 2 :, 0] = 235 - 7 * frame
    return picture


def _feature(dtype: str, *shape: int, names=None) -> dict:
    return {"dtype": dtype, "shape": list(shape), "names": names}


def _features(task: str) -> dict:
    axes = ["height", "width", "channels"]
    joints = ["pan", "lift", task]
    return {
        "observation.images.front": _feature("video", 48, 64, 3, names=axes),
        "observation.images.wrist": _feature("image", 48, 64, 3, names=axes),
        "next.reward": _feature("float32", 1),
        "next.done": _feature("bool", 1),
        "action": _feature("float32", 3, names=joints),
        "observation.state": _feature("float64", 3, names=joints),
        "clock": _feature("float64", 1),
        "grid": _feature("int64", 20, 20),
        "note": _feature("string", 1),
        "timestamp": _feature("float32", 1),
        **{key: _feature("int64", 1) for key in ("frame_index", "episode_index", "index")},
        "task_index": _feature("int64", 1),
    }


def _png(picture: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def _rows(episode: int, first: int, task: str) -> pa.Table:
    length = FILMED_LENGTHS[episode]
    k = np.arange(length)
    state = np.stack([np.sin(k / 5), np.cos(k / 5), np.full(length, 0.5)], axis=1)
    action = state.astype(np.float32)
    action[3, 0], action[4, 0] = np.nan, np.inf
    grid = np.tile(np.arange(20), (length, 20, 1))
    return pa.table(
        {
            "observation.images.wrist": [_png(_picture(episode, i)) for i in k],
            "next.reward": (k / length).astype(np.float32),
            "next.done": k == length - 1,
            "action": pa.FixedSizeListArray.from_arrays(action.reshape(-1), 3),
            "observation.state": pa.FixedSizeListArray.from_arrays(state.reshape(-1), 3),
            "clock": 1.7e9 + k / FILMED_FPS,
            "grid": pa.array(grid.tolist(), pa.list_(pa.list_(pa.int64()))),
            "note": ["begin" if i < 5 else task for i in k],
            "timestamp": (k / FILMED_FPS).astype(np.float32),
            "frame_index": k,
            "episode_index": np.full(length, episode),
            "index": first + k,
            "task_index": np.where(k < 8, 0, episode),
        }
    )


def _film(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "g": "6"}
        stream = container.add_stream("libx264", rate=FILMED_FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for episode, length in enumerate(FILMED_LENGTHS):
            for frame in range(length):
                picture = av.VideoFrame.from_ndarray(_picture(episode, frame), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def filmed(tmp_path_factory):
    """A v3.0 dataset of two episodes, a video and an image camera, and texts that are markup."""
    root = tmp_path_factory.mktemp("filmed") / "filmed"
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    info = {
        "codebase_version": "v3.0",
        "robot_type": HOSTILE,
        "total_episodes": 2,
        "total_frames": sum(FILMED_LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": FILMED_FPS,
        "splits": {"train": "0:2"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": _features(HOSTILE),
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = pa.table({"task_index": [0, 1], "task": ["pick", HOSTILE]})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    ends = np.cumsum(FILMED_LENGTHS)
    starts = ends - FILMED_LENGTHS
    zeros, video = np.zeros(2, dtype=np.int64), "videos/observation.images.front"
    episodes = {
        "episode_index": np.arange(2),
        "tasks": [["pick"], ["pick", HOSTILE]],
        "length": np.array(FILMED_LENGTHS),
        "data/chunk_index": zeros,
        "data/file_index": zeros,
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        f"{video}/chunk_index": zeros,
        f"{video}/file_index": zeros,
        f"{video}/from_timestamp": starts / FILMED_FPS,
        f"{video}/to_timestamp": ends / FILMED_FPS,
    }
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    rows = [_rows(i, int(first), HOSTILE) for i, first in enumerate(starts)]
    pq.write_table(pa.concat_tables(rows), root / "data/chunk-000/file-000.parquet")
    _film(root / video / "chunk-000/file-000.mp4")
    return root
