"""Exchange with the real LeRobot library, in its own Python: set LERAY_LEROBOT_PYTHON to run it."""

import json
import os
import subprocess

import numpy as np
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter

PYTHON = os.environ.get("LERAY_LEROBOT_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LERAY_LEROBOT_PYTHON names no Python that has lerobot"),
]

FEATURES = Features(
    {
        "observation.state": Feature("float32", (3,), ("x", "y", "z")),
        "action": Feature("float32", (2,)),
        "next.reward": Feature("float32", (1,)),
        "next.done": Feature("bool", (1,)),
        "grid": Feature("float32", (2, 3)),
        "note": Feature("string", (1,)),
    }
)
LENGTHS = (12, 1, 7)

READ = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root, out = sys.argv[1:]
def plain(item):
    return {k: v if isinstance(v, str) else v.tolist() for k, v in item.items()}
dataset = LeRobotDataset("local/exchange", root=root)
deltas = {"action": [-0.1, 0.0, 0.1], "observation.state": [-0.1, 0.0]}
windows = LeRobotDataset("local/exchange", root=root, delta_timestamps=deltas)
rows = [dict(row) for row in dataset.meta.episodes]
edges = [i for r in rows for i in (r["dataset_from_index"], r["dataset_to_index"] - 1)]
content = {
    "frames": len(dataset),
    "episodes": dataset.num_episodes,
    "edges": edges,
    "items": [plain(dataset[i]) for i in edges],
    "windows": [plain(windows[i]) for i in edges],
    "count": dataset.meta.stats["action"]["count"].tolist(),
    "tasks": list(dataset.meta.tasks.index),
}
open(out, "w").write(json.dumps(content))
"""

WRITE = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
features = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
}
dataset = LeRobotDataset.create(
    "local/exchange", fps=10, features=features, root=sys.argv[1], robot_type="r", use_videos=False
)
frame = 0
for episode, length in enumerate((4, 6)):
    for _ in range(length):
        dataset.add_frame({
            "observation.state": np.full(3, frame, dtype=np.float32),
            "action": np.full(2, -frame, dtype=np.float32),
            "next.reward": np.full(1, frame / 2, dtype=np.float32),
            "next.done": np.array([frame % 2 == 0]),
            "task": f"task {episode}",
        })
        frame += 1
    dataset.save_episode()
dataset.finalize()
"""


def run(script: str, *arguments: object) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PYTHON, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def read_with_lerobot(root, tmp_path) -> dict:
    out = tmp_path / "read.json"
    run(READ, root, out)
    return json.loads(out.read_text())


def make_episode(length: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
        "grid": rng.normal(size=(length, 2, 3)).astype(np.float32),
        "note": [f"frame {frame}" for frame in range(length)],
    }


def assert_same(content: dict, root) -> None:
    """Compare what LeRobot read with what our reader reads."""
    dataset = DatasetReader.open(root)
    columns = dataset.read()
    assert content["frames"] == content["count"][0] == len(columns)
    assert content["episodes"] == dataset.num_episodes
    assert content["tasks"] == dataset.tasks
    starts = columns.episode_ends - np.diff(columns.episode_ends, prepend=0)
    edges = np.stack([starts, columns.episode_ends - 1], axis=1).reshape(-1)
    assert content["edges"] == edges.tolist()
    for index, item, window in zip(edges, content["items"], content["windows"], strict=True):
        for name in dataset.features:
            assert item[name] == columns[name][index : index + 1].tolist()[0]
        assert item["task"] == dataset.tasks[columns.task_index[index]]
        assert item["episode_index"] == columns.episode_index[index]
        assert item["frame_index"] == columns.frame_index[index]
        assert item["timestamp"] == columns.timestamp[index]
        first, end = starts[item["episode_index"]], columns.episode_ends[item["episode_index"]]
        wanted = np.array([index - 1, index, index + 1])
        clamped = wanted.clip(first, end - 1)
        assert window["action"] == columns["action"][clamped].tolist()
        assert window["action_is_pad"] == (wanted != clamped).tolist()


@pytest.mark.parametrize("finalized", [True, False])
def test_lerobot_reads_what_we_write(tmp_path, finalized):
    root = tmp_path / "d"
    writer = DatasetWriter.create(root, fps=10, features=FEATURES, robot_type="virtual")
    for seed, length in enumerate(LENGTHS):
        writer.add_episode(make_episode(length, seed), f"task {seed % 2}")
    if finalized:
        writer.finalize()
    assert_same(read_with_lerobot(root, tmp_path), root)


def test_we_read_and_extend_what_lerobot_writes(tmp_path):
    root = tmp_path / "d"
    run(WRITE, root)
    dataset = DatasetReader.open(root)
    columns = dataset.read()
    assert dataset.findings == []
    assert (dataset.robot_type, dataset.tasks) == ("r", ["task 0", "task 1"])
    np.testing.assert_array_equal(columns["action"][:, 1], -np.arange(10))
    np.testing.assert_array_equal(columns["next.reward"], np.arange(10) / 2)
    np.testing.assert_array_equal(columns.episode_ends, [4, 10])
    episode = {name: make_episode(5, 0)[name] for name in dataset.features}
    with DatasetWriter.resume(root) as writer:
        assert writer.add_episode(episode, "task 2") == 2
    content = read_with_lerobot(root, tmp_path)
    assert (content["frames"], content["tasks"]) == (15, ["task 0", "task 1", "task 2"])
    assert_same(content, root)
