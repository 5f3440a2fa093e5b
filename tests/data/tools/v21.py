"""Filmed v2.0 and v2.1 datasets, built with Arrow, PyAV and Pillow, independent of our writer."""

import io
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
LENGTHS = (14, 9, 21)
HEIGHT, WIDTH = 48, 64
FRONT, SIDE, WRIST = (f"observation.images.{camera}" for camera in ("front", "side", "wrist"))
TASKS = ["pick", "unused", "place"]

os.environ.setdefault("SVT_LOG", "1")  # errors only

_B_FRAMES = {"g": "12", "bf": "3", "crf": "20", "sc_threshold": "0", "x264-params": "b-adapt=0"}
_AV1 = {"g": "4", "crf": "40", "preset": "13"}


def picture(episode: int, frame: int, camera: int = 0) -> np.ndarray:
    """A moving square on a gradient; every frame of every camera differs."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows * 4, columns * 3, np.full_like(rows, 40 * camera)], axis=-1)
    left = (3 * frame + 7 * episode) % (WIDTH - 10)
    image[10:20, left : left + 10] = (250 - 60 * episode, 20, 5 * frame)
    return image.astype(np.uint8)


def film(path: Path, frames: list[np.ndarray], codec="libx264", options=None, fps=FPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or _B_FRAMES)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def numbers(episode: int, lengths=LENGTHS) -> dict[str, np.ndarray]:
    """The numeric columns of an episode; values tell episode, frame and place."""
    length, first = lengths[episode], sum(lengths[:episode])
    rng = np.random.default_rng(episode)
    k = np.arange(length)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": (100 * episode + k[:, None] + [0.0, 0.5]).astype(np.float32),
        "next.reward": (k / length).astype(np.float32),
        "next.done": k == length - 1,
        "annotation.human.validity": np.full(length, 1),
        "timestamp": (k / FPS).astype(np.float32),
        "frame_index": k,
        "episode_index": np.full(length, episode),
        "index": first + k,
        "task_index": np.full(length, 2 * (episode % 2)),
    }


def features(cameras) -> dict:
    def entry(dtype, *shape, **more):
        return {"dtype": dtype, "shape": list(shape), **more}

    axes = ["height", "width", "channels"]
    visual = {
        FRONT: entry("video", HEIGHT, WIDTH, 3, names=axes, video_info={"video.codec": "h264"}),
        SIDE: entry("video", HEIGHT, WIDTH, 3, names=axes, info={"video.codec": "av1"}),
        WRIST: entry("image", HEIGHT, WIDTH, 3, names=axes),
    }
    return {
        "observation.state": entry("float32", 3, names={"motors": ["x", "y", "z"]}),
        **{name: visual[name] for name in cameras},
        "action": entry("float32", 2, names=None),
        "next.reward": entry("float32", 1, names=None),
        "next.done": entry("bool", 1, names=None),
        "annotation.human.validity": entry("int64", 1),
        "note": entry("string", 1, names=None),
        "timestamp": entry("float32", 1, names=None),
        **{
            name: entry("int64", 1, names=None)
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }


def image_entry(value: float) -> dict:
    """Statistics of a camera such as a recorder stores, recognisable by their mean."""
    whole = [[[value]]] * 3
    return {
        "min": [[[0.0]]] * 3,
        "max": [[[1.0]]] * 3,
        "mean": whole,
        "std": [[[0.25]]] * 3,
        "count": [100],
    }


def make(
    root: Path, *, version="v2.1", cameras=(FRONT, SIDE, WRIST), lengths=LENGTHS, stats=True, **info
) -> Path:
    """Build a dataset; `info` overrides keys of `info.json`."""
    (root / "meta").mkdir(parents=True)
    content = {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(TASKS),
        "total_videos": len(lengths) * len({FRONT, SIDE} & set(cameras)),
        "total_chunks": -(-len(lengths) // 2),
        "chunks_size": 2,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features(cameras),
        **info,
    }
    (root / "meta/info.json").write_text(json.dumps(content))
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(TASKS)]
    rows = [
        {"episode_index": i, "tasks": [TASKS[2 * (i % 2)]], "length": length}
        for i, length in enumerate(lengths)
    ]
    _write_lines(root / "meta/tasks.jsonl", tasks)
    _write_lines(root / "meta/episodes.jsonl", rows)
    if stats and version == "v2.1":
        entries = [
            {"episode_index": i, "stats": {name: image_entry(0.1 + 0.1 * i) for name in cameras}}
            for i in range(len(lengths))
        ]
        _write_lines(root / "meta/episodes_stats.jsonl", entries)
    for episode in range(len(lengths)):
        _write_episode(root, episode, cameras, lengths)
    return root


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _write_episode(root: Path, episode: int, cameras, lengths) -> None:
    chunk, length = f"chunk-{episode // 2:03d}", lengths[episode]
    columns = {
        name: pa.array(list(array)) if array.ndim > 1 else pa.array(array)
        for name, array in numbers(episode, lengths).items()
    }
    columns["note"] = pa.array([f"{episode}/{k}" for k in range(length)])
    if WRIST in cameras:
        columns[WRIST] = pa.array(
            [
                {"bytes": png(picture(episode, k, 2)), "path": f"frame_{k}.png"}
                for k in range(length)
            ]
        )
    path = root / f"data/{chunk}/episode_{episode:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    videos = {FRONT: ("libx264", _B_FRAMES, 0), SIDE: ("libsvtav1", _AV1, 1)}
    for name, (codec, options, number) in videos.items():
        if name in cameras:
            frames = [picture(episode, k, number) for k in range(length)]
            film(root / f"videos/{chunk}/{name}/episode_{episode:06d}.mp4", frames, codec, options)
