"""A client of `huggingface_hub` that talks to the stand-in Hub, and small datasets."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter

CAMERA = "observation.images.front"


@pytest.fixture(scope="session")
def standin():
    """The module of the stand-in Hub."""
    name = "leray_tests_hub_standin"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("standin.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty `HF_LEROBOT_HOME`, and nobody logged in."""
    for name in ("LEROBOT_HOME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    return tmp_path / "home"


@pytest.fixture
def hub(standin, home, monkeypatch):
    """An empty stand-in Hub that `huggingface_hub` takes for the real one."""
    disable_progress_bars()
    with standin.Hub().serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def dataset(tmp_path):
    """A v3.0 dataset of three episodes without cameras."""
    root = tmp_path / "recorded"
    features = Features({"action": Feature("float32", (2,), names=("x", "y"))})
    with DatasetWriter.create(root, fps=10, features=features, robot_type="so101") as writer:
        for episode in range(3):
            for step in range(4):
                writer.add_frame({"action": np.full(2, episode * 10 + step, np.float32)}, "reach")
            writer.save_episode()
    return root


@pytest.fixture
def contents():
    """Read a folder: names and contents of the files that are no bookkeeping of a download."""

    def read(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        named = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
        return {name: content for name, content in named.items() if not name.startswith(".")}

    return read


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _frames(episodes: list[int]) -> bytes:
    index = np.repeat(episodes, 2)
    rows = np.arange(len(index))
    table = {"action": index.astype(np.float32), "episode_index": index, "frame_index": rows % 2}
    return _parquet(pa.table({**table, "index": index * 2 + rows % 2, "task_index": index * 0}))


def _info(version: str, **paths) -> bytes:
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    features = {name: scalar for name in ("episode_index", "frame_index", "index", "task_index")}
    features["action"] = {"dtype": "float32", "shape": [1], "names": None}
    features[CAMERA] = {"dtype": "video", "shape": [8, 8, 3], "names": ["h", "w", "channels"]}
    counts = {"total_episodes": 4, "total_frames": 8, "total_tasks": 1, "chunks_size": 3}
    info = {"codebase_version": version, "fps": 10, "features": features, **counts, **paths}
    return json.dumps(info).encode()


@pytest.fixture
def v30():
    """A v3.0 dataset with a camera as files; four episodes, of which
    data file 0 holds 0 and 1, data file 1 holds 2 and 3; video file 0 holds 0 to 2, file 1 holds 3.
    """
    episodes = {
        "episode_index": np.arange(4),
        "tasks": [["reach"]] * 4,
        "length": np.full(4, 2),
        "data/chunk_index": np.zeros(4, np.int64),
        "data/file_index": np.array([0, 0, 1, 1]),
        f"videos/{CAMERA}/chunk_index": np.zeros(4, np.int64),
        f"videos/{CAMERA}/file_index": np.array([0, 0, 0, 1]),
        f"videos/{CAMERA}/from_timestamp": np.array([0.0, 0.2, 0.4, 0.0]),
        f"videos/{CAMERA}/to_timestamp": np.array([0.2, 0.4, 0.6, 0.2]),
    }
    number = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    paths = {
        "data_path": f"data/{number}.parquet",
        "video_path": f"videos/{{video_key}}/{number}.mp4",
    }
    return {
        "README.md": b"---\nlicense: mit\n---\n",
        "meta/info.json": _info("v3.0", **paths),
        "meta/stats.json": b"{}",
        "meta/tasks.parquet": _parquet(pa.table({"task_index": [0], "task": ["reach"]})),
        "meta/episodes/chunk-000/file-000.parquet": _parquet(pa.table(episodes)),
        "data/chunk-000/file-000.parquet": _frames([0, 1]),
        "data/chunk-000/file-001.parquet": _frames([2, 3]),
        f"videos/{CAMERA}/chunk-000/file-000.mp4": bytes(range(256)) * 400,
        f"videos/{CAMERA}/chunk-000/file-001.mp4": b"second" * 1000,
    }


@pytest.fixture
def v21():
    """A v2.1 dataset with a camera as files: four episodes, three to a chunk folder."""
    rows = [{"episode_index": e, "tasks": ["reach"], "length": 2} for e in range(4)]
    chunk, episode = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"
    paths = {
        "data_path": f"data/{chunk}/{episode}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/{episode}.mp4",
    }
    files = {
        "meta/info.json": _info("v2.1", **paths),
        "meta/tasks.jsonl": b'{"task_index": 0, "task": "reach"}\n',
        "meta/episodes.jsonl": "\n".join(map(json.dumps, rows)).encode(),
    }
    for e in range(4):
        files[f"data/chunk-{e // 3:03d}/episode_{e:06d}.parquet"] = _frames([e])
        files[f"videos/chunk-{e // 3:03d}/{CAMERA}/episode_{e:06d}.mp4"] = b"%d" % e * 900
    return files


@pytest.fixture
def place(tmp_path):
    """Write files into a new folder."""

    def write(files: dict[str, bytes], name: str = "placed") -> Path:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return tmp_path / name

    return write
