"""Small flawless datasets of every version, built without our writer."""

import functools
import io
import json
import tempfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LENGTHS = (12, 20, 8)
FPS = 10
HEIGHT, WIDTH = 32, 48
VIDEO, PICTURE = "observation.images.front", "observation.images.wrist"
TASKS = ("pick", "place")
EPISODE_TASKS = ((0,), (0, 1), (1,))
EPISODES_PARQUET = "meta/episodes/chunk-000/file-000.parquet"
DATA_PARQUET = "data/chunk-000/file-000.parquet"
VIDEO_V3 = f"videos/{VIDEO}/chunk-000/file-000.mp4"
_V3 = {
    "data_files_size_in_mb": 100,
    "video_files_size_in_mb": 200,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_V2 = {
    "total_videos": len(LENGTHS),
    "total_chunks": 1,
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}


def build(root: Path, version: str) -> Path:
    """Write a dataset of 3 episodes with every kind of feature, and return its folder."""
    for name, content in _files(version).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@functools.cache
def _files(version: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root, version)
        paths = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _write(root: Path, version: str) -> None:
    episodes = [columns(index) for index in range(len(LENGTHS))]
    info = {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "features": features(),
        **(_V3 if version == "v3.0" else _V2),
    }
    write_json(root / "meta/info.json", info)
    whole = {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}
    if version != "v2.1":
        write_json(root / "meta/stats.json", plain(statistics(whole)))
    if version == "v3.0":
        _write_v3(root, episodes)
    else:
        _write_v2(root, episodes, version)


def features() -> dict:
    axes = ["height", "width", "channels"]
    video = {
        "video.height": HEIGHT,
        "video.width": WIDTH,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": FPS,
        "video.channels": 3,
        "has_audio": False,
    }
    entries = {
        "observation.state": ("float32", [3], ["pan", "lift", "grip"]),
        "action": ("float32", [2], ["x", "y"]),
        "grid": ("int64", [2, 3], None),
        "next.reward": ("float32", [1], None),
        "next.done": ("bool", [1], None),
        "note": ("string", [1], None),
        VIDEO: ("video", [HEIGHT, WIDTH, 3], axes),
        PICTURE: ("image", [HEIGHT, WIDTH, 3], axes),
        "timestamp": ("float32", [1], None),
        **{
            name: ("int64", [1], None)
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }
    described = {n: {"dtype": d, "shape": s, "names": k} for n, (d, s, k) in entries.items()}
    described[VIDEO]["info"] = video
    return described


def columns(index: int) -> dict[str, np.ndarray]:
    """The frames of one episode, pictures as uint8 [frames, H, W, 3]."""
    length, first = LENGTHS[index], sum(LENGTHS[:index])
    rng = np.random.default_rng(index)
    frame = np.arange(length)
    tasks = np.array(EPISODE_TASKS[index])
    pictures = np.stack([picture(index, k) for k in range(length)])
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "grid": rng.integers(0, 50, (length, 2, 3)),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.done": frame == length - 1,
        "note": np.array([f"row {first + k}" for k in frame]),
        VIDEO: pictures,
        PICTURE: pictures,
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(length, index),
        "index": first + frame,
        "task_index": tasks[(frame * len(tasks)) // length],
    }


def picture(episode: int, frame: int) -> np.ndarray:
    """A picture that tells its place: red is the frame, green the episode."""
    result = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    result[..., 0] = 10 + 10 * frame
    result[: HEIGHT // 2, :, 1] = 60 + 60 * episode
    result[:, WIDTH // 2 :, 2] = 200
    return result


def statistics(frames: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """LeRobot's statistics of all numeric and visual columns, straight from their definition."""
    entries = {}
    for name, array in frames.items():
        if array.dtype.kind not in "biuf":
            continue
        values = array.astype(np.float64)
        if name in (VIDEO, PICTURE):
            values, axes, count = values / 255, (0, 1, 2), len(array)
        else:
            values, axes, count = values.reshape(len(array), -1), (0,), len(array)
        shape = (3, 1, 1) if name in (VIDEO, PICTURE) else array.shape[1:] or (1,)
        found = {
            "min": values.min(axis=axes),
            "max": values.max(axis=axes),
            "mean": values.mean(axis=axes),
            "std": values.std(axis=axes),
            **{
                f"q{percent:02d}": np.quantile(values, percent / 100, axis=axes)
                for percent in (1, 10, 50, 90, 99)
            },
        }
        entries[name] = {key: value.reshape(shape) for key, value in found.items()}
        entries[name]["count"] = np.array([count])
    return entries


def plain(entries: dict) -> dict:
    """Arrays as nested lists."""
    return {n: {key: value.tolist() for key, value in e.items()} for n, e in entries.items()}


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4))


def data_table(frames: dict[str, np.ndarray]) -> pa.Table:
    """The rows of a data file in LeRobot's types."""
    arrays = {}
    for name, array in frames.items():
        if name == VIDEO:
            continue
        if name == PICTURE:
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            arrays[name] = pa.array([{"bytes": png(p), "path": None} for p in array], kind)
        elif array.ndim == 2:
            arrays[name] = pa.FixedSizeListArray.from_arrays(array.reshape(-1), array.shape[1])
        elif array.ndim > 2:
            arrays[name] = pa.array(array.tolist(), pa.list_(pa.list_(pa.int64())))
        else:
            arrays[name] = pa.array(array.tolist() if array.dtype.kind == "U" else array)
    return pa.table(arrays)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


@functools.cache
def film(episodes: tuple[int, ...], fps: int = FPS, group: int = 2) -> bytes:
    """The mp4 of some episodes, one after the other; its table of frames stands first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        _encode(path, episodes, fps, group)
        return path.read_bytes()


def _encode(path: Path, episodes: tuple[int, ...], fps: int, group: int) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        options = {"crf": "30", "g": str(group), "bf": "0", "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for episode in episodes:
            for frame in range(LENGTHS[episode]):
                shown = av.VideoFrame.from_ndarray(picture(episode, frame), format="rgb24")
                container.mux(stream.encode(shown))
        container.mux(stream.encode())


def task_table() -> pa.Table:
    """As pandas writes a frame whose index is the text."""
    columns = [{"name": "task_index"}, {"name": "task"}]
    pandas = {"index_columns": ["task"], "columns": columns, "column_indexes": []}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    return pa.table({"task_index": range(len(TASKS)), "task": list(TASKS)}, schema=schema)


def _write_v2(root: Path, episodes: list, version: str) -> None:
    rows, stats = [], []
    for index, frames in enumerate(episodes):
        path = root / f"data/chunk-000/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(data_table(frames), path)
        path = root / f"videos/chunk-000/{VIDEO}/episode_{index:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film((index,)))
        tasks = [TASKS[i] for i in EPISODE_TASKS[index]]
        rows.append({"episode_index": index, "tasks": tasks, "length": LENGTHS[index]})
        stats.append({"episode_index": index, "stats": plain(statistics(frames))})
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(TASKS)]
    files = {"tasks": tasks, "episodes": rows}
    if version == "v2.1":
        files["episodes_stats"] = stats
    for name, lines in files.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / f"meta/{name}.jsonl").write_text(text)


def _write_v3(root: Path, episodes: list) -> None:
    for number, held in enumerate([(0, 1), (2,)]):
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = [data_table(episodes[index]) for index in held]
        with pq.ParquetWriter(path, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
    path = root / VIDEO_V3
    path.parent.mkdir(parents=True)
    path.write_bytes(film((0, 1, 2)))
    pq.write_table(task_table(), root / "meta/tasks.parquet")
    ends = np.cumsum(LENGTHS)
    starts, zeros = ends - LENGTHS, np.zeros(len(LENGTHS), dtype=np.int64)
    table = {
        "episode_index": np.arange(len(LENGTHS)),
        "tasks": [[TASKS[i] for i in indices] for indices in EPISODE_TASKS],
        "length": np.array(LENGTHS),
        "data/chunk_index": zeros,
        "data/file_index": np.array([0, 0, 1]),
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        f"videos/{VIDEO}/chunk_index": zeros,
        f"videos/{VIDEO}/file_index": zeros,
        f"videos/{VIDEO}/from_timestamp": starts / FPS,
        f"videos/{VIDEO}/to_timestamp": ends / FPS,
    }
    of_episodes = [plain(statistics(frames)) for frames in episodes]
    for name, entry in of_episodes[0].items():
        for key in entry:
            table[f"stats/{name}/{key}"] = [stats[name][key] for stats in of_episodes]
    table |= {"meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros}
    path = root / EPISODES_PARQUET
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table), path)
