"""Exchange with the real LeRobot library, in its own Python: set LERAY_LEROBOT_PYTHON to run it."""

import json
import os
import subprocess

import numpy as np
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.options import VideoOptions

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


CAMERAS = Features(
    {
        "action": Feature("float32", (2,)),
        "observation.images.top": Feature("video", (48, 64, 3), ("height", "width", "channels")),
        "observation.images.wrist": Feature("video", (3, 64, 48), ("channels", "height", "width")),
        "observation.image": Feature("image", (24, 32, 3), ("height", "width", "channels")),
    }
)

READ_CAMERAS = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root, out = sys.argv[1:]
dataset = LeRobotDataset("local/exchange", root=root)
cameras = dataset.meta.camera_keys
deltas = {camera: [-0.1, 0.0, 0.1] for camera in cameras}
windows = LeRobotDataset("local/exchange", root=root, delta_timestamps=deltas)
content = {f"mean/{c}": dataset.meta.stats[c]["mean"] for c in cameras}
for row in map(dict, dataset.meta.episodes):
    for index in (row["dataset_from_index"], row["dataset_to_index"] - 1):
        item, window = dataset[index], windows[index]
        for camera in cameras:
            content[f"frame/{camera}/{index}"] = item[camera].numpy()
            content[f"window/{camera}/{index}"] = window[camera].numpy()
            content[f"pad/{camera}/{index}"] = window[camera + "_is_pad"].numpy()
np.savez(out, **content)
"""

WRITE_CAMERAS = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
axes = ["height", "width", "channels"]
features = {
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "observation.images.top": {"dtype": "video", "shape": (48, 64, 3), "names": axes},
    "observation.images.wrist": {
        "dtype": "video", "shape": (3, 64, 48), "names": ["channels", "height", "width"]
    },
    "observation.image": {"dtype": "image", "shape": (24, 32, 3), "names": axes},
}
dataset = LeRobotDataset.create("local/exchange", fps=10, features=features, root=sys.argv[1])
for episode, length in enumerate((4, 6)):
    for frame in range(length):
        colour = np.uint8(100 * episode + 10 * frame)
        pictures = {
            name: np.full(feature["shape"], colour)
            for name, feature in features.items() if name != "action"
        }
        dataset.add_frame({"action": np.zeros(2, np.float32), "task": "t", **pictures})
    dataset.save_episode()
dataset.finalize()
"""


def make_pictures(length: int, seed: int) -> dict:
    """Smooth pictures, each of other colours."""
    rng = np.random.default_rng(seed)
    episode = {"action": rng.normal(size=(length, 2)).astype(np.float32)}
    for name in list(CAMERAS)[1:]:
        height, width, _ = CAMERAS[name].image_shape
        slope = np.linspace(0, 1, height)[:, None, None] * np.linspace(0, 1, width)[:, None]
        first, last = rng.uniform(0, 255, (2, length, 1, 1, 3))
        pictures = (first + (last - first) * slope).astype(np.uint8)
        is_first = CAMERAS[name].is_channels_first
        episode[name] = np.moveaxis(pictures, -1, 1) if is_first else pictures
    return episode


def assert_shows_the_same(root, tmp_path) -> None:
    """Compare the pictures that LeRobot finds with those that our reader finds."""
    out = tmp_path / "pictures.npz"
    run(READ_CAMERAS, root, out)
    content = np.load(out)
    dataset = DatasetReader.open(root)
    ends = dataset.read([]).episode_ends
    compared = 0
    for name, found in content.items():
        kind, camera, *rest = name.split("/")
        if kind == "mean":
            np.testing.assert_allclose(found, dataset.image_stats(camera)["mean"], atol=1e-6)
            continue
        index = int(rest[0])
        episode = int(np.searchsorted(ends, index, side="right"))
        wanted = index + np.arange(-1, 2)
        inside = wanted.clip(ends[episode - 1] if episode else 0, ends[episode] - 1)
        if kind == "pad":
            assert found.tolist() == (wanted != inside).tolist()
            continue
        frames = inside if kind == "window" else np.array([index])
        ours = np.moveaxis(dataset.read_frames(camera, frames), -1, 1) / 255
        np.testing.assert_allclose(found.reshape(ours.shape), ours, atol=1.01 / 255)
        compared += 1
    edges = {0, *ends[:-1].tolist(), *(ends - 1).tolist()}
    assert compared == 2 * len(dataset.cameras) * len(edges)


@pytest.mark.parametrize("finalized", [True, False])
def test_lerobot_reads_the_pictures_that_we_write(tmp_path, finalized):
    root = tmp_path / "d"
    h264 = VideoOptions(vcodec="h264", preset="ultrafast")
    writer = DatasetWriter.create(root, fps=10, features=CAMERAS, video=h264)
    for seed, length in enumerate(LENGTHS):
        writer.add_episode(make_pictures(length, seed), "t")
    if finalized:
        writer.finalize()
        with DatasetWriter.resume(root) as writer:  # in AV1
            for seed, length in enumerate((3, 5), 10):
                writer.add_episode(make_pictures(length, seed), "t")
    assert_shows_the_same(root, tmp_path)


def test_we_extend_the_pictures_that_lerobot_writes(tmp_path):
    root = tmp_path / "d"
    run(WRITE_CAMERAS, root)
    dataset = DatasetReader.open(root)
    assert dataset.num_episodes == 2
    for camera in dataset.cameras:
        colours = dataset.read_frames(camera, np.arange(10)).mean(axis=(1, 2, 3))
        assert np.abs(colours - [*range(0, 40, 10), *range(100, 160, 10)]).max() < 4
    assert_shows_the_same(root, tmp_path)
    with DatasetWriter.resume(root) as writer:
        assert writer.add_episode(make_pictures(7, 0), "t") == 2
    assert_shows_the_same(root, tmp_path)


def test_lerobot_trains_act_on_what_we_write(tmp_path):
    root = tmp_path / "dataset"
    features = Features(
        {
            "observation.state": Feature("float32", (6,)),
            "observation.images.front": Feature(
                "video", (64, 64, 3), ("height", "width", "channels")
            ),
            "action": Feature("float32", (6,)),
        }
    )
    rng = np.random.default_rng(0)
    with DatasetWriter.create(root, fps=10, features=features) as writer:
        for length in (20, 30):
            writer.add_episode(
                {
                    "observation.state": rng.normal(size=(length, 6)).astype(np.float32),
                    "observation.images.front": rng.integers(
                        0, 255, (length, 64, 64, 3), dtype=np.uint8
                    ),
                    "action": rng.normal(size=(length, 6)).astype(np.float32),
                },
                task="t",
            )
    options = {
        "policy.type": "act",
        "policy.push_to_hub": "false",
        "policy.pretrained_backbone_weights": "null",
        "policy.device": "cpu",
        "dataset.repo_id": "local/exchange",
        "dataset.root": root,
        "output_dir": tmp_path / "run",
        "steps": 2,
        "batch_size": 2,
        "num_workers": 0,
        "eval_freq": 0,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [PYTHON, "-m", "lerobot.scripts.lerobot_train", *flags]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/checkpoints/000002/pretrained_model/model.safetensors").is_file()
