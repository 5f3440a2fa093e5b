"""Datasets of any version and shape, built with Arrow, PyAV and Pillow, independent of our writer.

Every picture carries its number in black and white blocks, so that a wrong frame is always seen.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HEIGHT, WIDTH, BLOCK = 32, 48, 8
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LONG = {"g": "250", "bf": "3", "crf": "20", "sc_threshold": "0", "x264-params": "b-adapt=0"}
"""h264 with B-frames; the only key frame is the first."""
SHORT = {"g": "2", "bf": "0", "crf": "20", "sc_threshold": "0"}
_CLOCK_HZ = 15360


@dataclass(frozen=True)
class Camera:
    """How one camera is stored."""

    kind: str = "video"
    """`video`, or the format of pictures in a column: `png`, `jpeg`, `path` (beside it, as png)."""
    files: tuple[int, ...] = ()
    """Episodes per mp4 (v3.0); all in one when empty."""
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(SHORT))
    first: bool = False
    """Whether the channels are declared first."""
    jitter_s: float = 0.0
    """Frames are shown up to so much too late or too early."""


@dataclass(frozen=True)
class Made:
    """A dataset and all that is in it."""

    root: Path
    lengths: tuple[int, ...]
    fps: int
    columns: dict[str, np.ndarray]
    """Per feature the values of all frames, bookkeeping columns included."""
    tasks: list[str]

    @property
    def ends(self) -> np.ndarray:
        return np.cumsum(self.lengths)

    def bounds(self, frame: int) -> tuple[int, int]:
        """First frame of the episode that holds a frame, and the one after its last."""
        episode = int(np.searchsorted(self.ends, frame, side="right"))
        return int(self.ends[episode] - self.lengths[episode]), int(self.ends[episode])


def number_of(camera: int, frame: int) -> int:
    """The number that a picture shows."""
    return 4096 * (camera + 1) + frame


def picture(number: int) -> np.ndarray:
    """Write a number below 2^24 in blocks."""
    bits = np.array([number >> place & 1 for place in range(24)], np.uint8)
    blocks = 30 + 200 * bits.reshape(HEIGHT // BLOCK, WIDTH // BLOCK)
    image = np.repeat(np.repeat(blocks, BLOCK, axis=0), BLOCK, axis=1)
    return np.stack([image] * 3, axis=-1).astype(np.uint8)


def numbers(pictures: np.ndarray) -> np.ndarray:
    """Read the numbers of pictures [..., height, width, 3]."""
    blocks = pictures.reshape(
        *pictures.shape[:-3], HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK, 3
    )
    light = blocks.mean(axis=(-4, -2, -1)) > 130
    return (light.reshape(*pictures.shape[:-3], 24) << np.arange(24)).sum(axis=-1)


def make(
    root: Path,
    *,
    version: str = "v3.0",
    lengths: tuple[int, ...] = (7, 12, 4),
    cameras: dict[str, Camera] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    fps: int = 10,
    seed: int = 0,
    tasks: tuple[str, ...] = ("pick", "place"),
    data_files: tuple[int, ...] = (),
    row_group: int = 1_000_000,
    base: int = 0,
) -> Made:
    """Build a dataset.

    Args:
        root: where.
        version: of the format.
        lengths: of the episodes.
        cameras: by name.
        shapes: of float32 features; state, action, reward, done and a grid when None.
        fps: frames per second.
        seed: of the values.
        tasks: texts; episode e has the one with number e modulo their count.
        data_files: episodes per parquet file (v3.0); all in one when empty.
        row_group: rows of a row group.
        base: added to the numbers of pictures.
    """
    cameras = cameras or {}
    columns = _columns(lengths, shapes, fps, seed, len(tasks))
    for place, name in enumerate(cameras):
        shown = [base + number_of(place, frame) for frame in range(sum(lengths))]
        columns[name] = np.array(shown)
    made = Made(root, tuple(lengths), fps, columns, list(tasks))
    (root / "meta").mkdir(parents=True)
    _write_info(made, version, cameras)
    if version == "v3.0":
        groups = _groups(len(lengths), data_files)
        _write_meta_v3(made, cameras, groups)
    else:
        groups = [[episode] for episode in range(len(lengths))]
        _write_meta_v2(made)
    for number, group in enumerate(groups):
        name = f"file-{number:03d}" if version == "v3.0" else f"episode_{number:06d}"
        path = root / f"data/chunk-000/{name}.parquet"
        _write_data(path, made, cameras, group, row_group)
    for name, camera in cameras.items():
        if camera.kind == "video":
            _write_videos(made, version, name, camera)
    return made


def film(path: Path, shown: list[int], fps: int, camera: Camera, size=(HEIGHT, WIDTH)) -> None:
    """Encode the pictures of some numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _svt_silent():
        _film(path, shown, fps, camera, size)


@contextmanager
def _svt_silent() -> Iterator[None]:
    """Have libsvtav1 report fatal errors only; its setting must not reach other tests."""
    before = os.environ.get("SVT_LOG")
    os.environ["SVT_LOG"] = "0"
    yield
    del os.environ["SVT_LOG"]
    if before is not None:
        os.environ["SVT_LOG"] = before


def _film(path: Path, shown: list[int], fps: int, camera: Camera, size) -> None:
    rng = np.random.default_rng(len(shown))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(camera.codec, rate=Fraction(fps), options=camera.options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        if camera.jitter_s:
            stream.codec_context.time_base = Fraction(1, _CLOCK_HZ)
        for place, number in enumerate(shown):
            image = np.resize(picture(number), (*size, 3))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if camera.jitter_s:
                late = rng.uniform(-camera.jitter_s, camera.jitter_s) if place else 0.0
                frame.time_base = Fraction(1, _CLOCK_HZ)
                frame.pts = round((place / fps + late) * _CLOCK_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def encoded(image: np.ndarray, kind: str) -> bytes:
    """Compress a picture."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg" if kind == "jpeg" else "png")
    return file.getvalue()


def _columns(lengths, shapes, fps, seed, num_tasks) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    if shapes is None:
        values = {
            "observation.state": rng.normal(size=(total, 3)).astype(np.float32),
            "action": rng.normal(size=(total, 2)).astype(np.float32),
            "next.reward": rng.normal(size=total).astype(np.float32),
            "next.done": frame == np.repeat(lengths, lengths) - 1,
            "grid": rng.integers(-9, 9, (total, 2, 3)),
        }
    else:
        values = {
            name: rng.normal(size=(total, *(() if shape == (1,) else shape))).astype(np.float32)
            for name, shape in shapes.items()
        }
    return values | {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(total),
        "task_index": episode % num_tasks,
    }


def _groups(episodes: int, counts: tuple[int, ...]) -> list[list[int]]:
    ends = np.cumsum(counts or (episodes,))
    assert ends[-1] == episodes
    return [list(part) for part in np.split(np.arange(episodes), ends[:-1])]


def _write_info(made: Made, version: str, cameras: dict[str, Camera]) -> None:
    features = {}
    for name, array in made.columns.items():
        if name in cameras:
            camera, shape = cameras[name], [HEIGHT, WIDTH, 3]
            axes = ["height", "width", "channels"]
            if camera.first:
                shape, axes = [3, HEIGHT, WIDTH], ["channels", "height", "width"]
            dtype = "video" if camera.kind == "video" else "image"
            features[name] = {"dtype": dtype, "shape": shape, "names": axes}
        else:
            shape = list(array.shape[1:]) or [1]
            features[name] = {"dtype": array.dtype.name, "shape": shape, "names": None}
    v3 = version == "v3.0"
    chunk, file = "chunk-{chunk_index:03d}", "file-{file_index:03d}"
    old_chunk, old_file = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"
    info = {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": len(made.lengths),
        "total_frames": sum(made.lengths),
        "total_tasks": len(made.tasks),
        "chunks_size": 1000,
        "fps": made.fps,
        "splits": {"train": f"0:{len(made.lengths)}"},
        "data_path": f"data/{chunk}/{file}.parquet"
        if v3
        else f"data/{old_chunk}/{old_file}.parquet",
        "video_path": f"videos/{{video_key}}/{chunk}/{file}.mp4"
        if v3
        else f"videos/{old_chunk}/{{video_key}}/{old_file}.mp4",
        "features": features,
    }
    (made.root / "meta/info.json").write_text(json.dumps(info))


def _write_meta_v2(made: Made) -> None:
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(made.tasks)]
    rows = [
        {"episode_index": e, "tasks": [made.tasks[e % len(made.tasks)]], "length": length}
        for e, length in enumerate(made.lengths)
    ]
    (made.root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    (made.root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _write_meta_v3(made: Made, cameras: dict[str, Camera], groups: list[list[int]]) -> None:
    pq.write_table(
        pa.table({"task_index": range(len(made.tasks)), "task": made.tasks}),
        made.root / "meta/tasks.parquet",
    )
    episodes = len(made.lengths)
    table = {
        "episode_index": np.arange(episodes),
        "tasks": [[made.tasks[e % len(made.tasks)]] for e in range(episodes)],
        "length": np.array(made.lengths),
        "data/chunk_index": np.zeros(episodes, np.int64),
        "data/file_index": np.concatenate([[n] * len(g) for n, g in enumerate(groups)]),
        "dataset_from_index": made.ends - made.lengths,
        "dataset_to_index": made.ends,
    }
    for name, camera in cameras.items():
        if camera.kind != "video":
            continue
        files = _groups(episodes, camera.files)
        spans = [np.concatenate([[0], np.cumsum([made.lengths[e] for e in g])]) for g in files]
        table |= {
            f"videos/{name}/chunk_index": np.zeros(episodes, np.int64),
            f"videos/{name}/file_index": np.concatenate(
                [[n] * len(g) for n, g in enumerate(files)]
            ),
            f"videos/{name}/from_timestamp": np.concatenate([s[:-1] for s in spans]) / made.fps,
            f"videos/{name}/to_timestamp": np.concatenate([s[1:] for s in spans]) / made.fps,
        }
    path = made.root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table), path)


def _write_data(path: Path, made: Made, cameras, group: list[int], row_group: int) -> None:
    first = int(made.ends[group[0]] - made.lengths[group[0]])
    rows = slice(first, int(made.ends[group[-1]]))
    arrays = {}
    for name, array in made.columns.items():
        if name not in cameras:
            arrays[name] = pa.array(array[rows].tolist() if array.ndim > 1 else array[rows])
        elif cameras[name].kind != "video":
            entries = [_entry(made.root, name, n, cameras[name].kind) for n in array[rows].tolist()]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            arrays[name] = pa.array(entries, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path, row_group_size=row_group)


def _entry(root: Path, name: str, number: int, kind: str) -> dict:
    content = encoded(picture(number), kind)
    if kind != "path":
        return {"bytes": content, "path": None}
    path = root / f"images/{name}/{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"bytes": None, "path": path.relative_to(root).as_posix()}


def _write_videos(made: Made, version: str, name: str, camera: Camera) -> None:
    groups = _groups(
        len(made.lengths), camera.files if version == "v3.0" else (1,) * len(made.lengths)
    )
    for number, group in enumerate(groups):
        first = int(made.ends[group[0]] - made.lengths[group[0]])
        shown = made.columns[name][first : int(made.ends[group[-1]])].tolist()
        path = made.root / (
            f"videos/{name}/chunk-000/file-{number:03d}.mp4"
            if version == "v3.0"
            else f"videos/chunk-000/{name}/episode_{number:06d}.mp4"
        )
        film(path, shown, made.fps, camera)
