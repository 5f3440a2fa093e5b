"""Small datasets of every version, built with Arrow and JSON, independent of our writer."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LENGTHS = (3, 5, 2)
SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _info(version: str, **overrides) -> dict:
    episodes, frames = len(LENGTHS), sum(LENGTHS)
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "action": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1]},
        "grid": {"dtype": "int64", "shape": [2, 3]},
        "note": {"dtype": "string", "shape": [1]},
    }
    for name in SCALARS:
        dtype = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": f"0:{episodes}"},
        "features": features,
        "video_path": None,
    }
    if version == "v3.0":
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    else:
        path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info |= {"data_path": path, "total_videos": 0, "total_chunks": 1}
    return info | overrides


def _episode(index: int) -> pa.Table:
    length, first = LENGTHS[index], sum(LENGTHS[:index])
    rows = np.arange(first, first + length)
    state = np.stack([rows, -rows], axis=1).astype(np.float32)
    grid = rows[:, None, None] * 10 + np.arange(6).reshape(2, 3)
    return pa.table(
        {
            "observation.state": pa.FixedSizeListArray.from_arrays(state.reshape(-1), 2),
            "action": pa.array(rows.astype(np.float32)),
            "next.done": pa.array(np.arange(length) == length - 1),
            "grid": pa.array(grid.tolist(), pa.list_(pa.list_(pa.int64()))),
            "note": pa.array([f"row {row}" for row in rows]),
            "timestamp": pa.array((np.arange(length) / 10).astype(np.float32)),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array(np.full(length, index)),
            "index": pa.array(rows),
            "task_index": pa.array(np.full(length, index % 2)),
        }
    )


@pytest.fixture
def lengths():
    """Frames per episode of the synthetic datasets."""
    return LENGTHS


@pytest.fixture
def episode():
    """Build the table of one synthetic episode."""
    return _episode


@pytest.fixture
def make_v21(tmp_path):
    """Build a v2.1 (or v2.0) dataset: one file per episode, JSON lines beside it."""

    def make(version="v2.1", **overrides) -> Path:
        root = tmp_path / "v21"
        (root / "meta").mkdir(parents=True)
        info = _info(version, **overrides)
        (root / "meta/info.json").write_text(json.dumps(info))
        tasks = [{"task_index": 1, "task": "place"}, {"task_index": 0, "task": "pick"}]
        rows = [
            {"episode_index": i, "tasks": [tasks[1 - i % 2]["task"]], "length": length}
            for i, length in enumerate(LENGTHS)
        ]
        (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
        (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        for index in range(len(LENGTHS)):
            chunk = index // info["chunks_size"]
            path = root / f"data/chunk-{chunk:03d}/episode_{index:06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(_episode(index), path)
        return root

    return make


@pytest.fixture
def make_v30(tmp_path):
    """Build a v3.0 dataset: episodes 0 and 1 in the first data file, episode 2 in the second."""

    def make(task_column="task", *, row_groups=True, **overrides) -> Path:
        root = tmp_path / "v30"
        for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
            (root / folder).mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(_info("v3.0", **overrides)))
        tasks = pa.table({"task_index": [0, 1], task_column: ["pick", "place"]})
        pq.write_table(tasks, root / "meta/tasks.parquet")
        ends = np.cumsum(LENGTHS)
        episodes = pa.table(
            {
                "episode_index": np.arange(3),
                "tasks": [["pick"], ["place"], ["pick"]],
                "length": np.array(LENGTHS),
                "data/chunk_index": np.zeros(3, dtype=np.int64),
                "data/file_index": np.array([0, 0, 1]),
                "dataset_from_index": ends - LENGTHS,
                "dataset_to_index": ends,
                "stats/action/min": [[0.0], [0.0], [0.0]],
            }
        )
        pq.write_table(episodes, root / "meta/episodes/chunk-000/file-000.parquet")
        first = pa.concat_tables([_episode(0), _episode(1)])
        size = 3 if row_groups else len(first)
        pq.write_table(first, root / "data/chunk-000/file-000.parquet", row_group_size=size)
        pq.write_table(_episode(2), root / "data/chunk-000/file-001.parquet")
        return root

    return make
