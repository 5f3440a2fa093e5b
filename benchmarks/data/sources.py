"""The data of the measurements: v3.0 datasets written by LeRay, made once and kept.

Each folder is named by what is in it, so other sizes give another folder.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scene import Scene

from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.options import VideoOptions

FOLDER = Path(os.environ.get("BENCHMARK_DATA", "outputs/benchmarks/data"))
FPS = 30
STATE, ACTION, CAMERA = "observation.state", "action", "observation.images.front"
HEIGHT, WIDTH = 480, 640
FRAME_BYTES = HEIGHT * WIDTH * 3
VIDEOS = {
    "h264": VideoOptions(vcodec="h264"),
    "av1": VideoOptions(),
    "h264_g250": VideoOptions(vcodec="h264", g=250),
}
"""LeRobot's defaults (key frame every 2 frames, crf 30) in two codecs, and few key frames."""


def numeric(episodes: int, length: int, size: int = 14) -> Path:
    """Return a dataset of states and actions of some size, smooth random curves."""

    def write(root: Path) -> None:
        rng = np.random.default_rng(0)
        with DatasetWriter.create(
            root, fps=FPS, features=_numeric_features(size), episodes_per_commit=episodes
        ) as writer:
            for _ in range(episodes):
                writer.add_episode(_curves(rng, length, size), "reach")

    return _made(f"numeric_{episodes}x{length}x{size}", write)


def video(name: str, episodes: int, length: int, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Return a dataset with one camera; `name` is one of `VIDEOS`."""

    def write(root: Path) -> None:
        rng = np.random.default_rng(0)
        with DatasetWriter.create(
            root,
            fps=FPS,
            features=_camera_features(height, width),
            video=VIDEOS[name],
            episodes_per_commit=episodes,
        ) as writer:
            for episode in range(episodes):
                scene = Scene(episode, height=height, width=width)
                columns = _curves(rng, length, 14)
                for frame in range(length):
                    values = {key: column[frame] for key, column in columns.items()}
                    writer.add_frame(values | {CAMERA: scene.picture(frame / FPS)}, "reach")
                writer.save_episode()

    size = "" if (height, width) == (HEIGHT, WIDTH) else f"_{height}x{width}"
    return _made(f"video_{name}_{episodes}x{length}{size}", write)


def repeated(name: str, episodes: int, length: int, frames: int) -> Path:
    """Return a dataset of at least so many frames: the episodes of `video`, over and over."""
    source = video(name, episodes, length)

    def write(root: Path) -> None:
        reader, rng = DatasetReader.open(source), np.random.default_rng(1)
        file = next((source / "videos").rglob("*.mp4"))
        stats = {CAMERA: reader.stats[CAMERA]}
        copies = -(-frames // length)
        with DatasetWriter.create(
            root,
            fps=FPS,
            features=_camera_features(HEIGHT, WIDTH),
            video=VIDEOS[name],
            episodes_per_commit=copies,
        ) as writer:
            for episode in range(copies):
                first = episode % episodes * length
                clips = {CAMERA: (file, first, length)}
                columns = _curves(rng, length, 14)
                writer.add_episode(columns, "reach", videos=clips, stats=stats)

    return _made(f"{source.name}_repeated_{frames}", write)


def _made(name: str, write: Callable[[Path], None]) -> Path:
    """Return a dataset's folder; it appears when all is written."""
    folder = FOLDER / name
    if not folder.is_dir():
        print(f"making {folder}", flush=True)
        work = FOLDER / f".{name}"
        shutil.rmtree(work, ignore_errors=True)
        work.parent.mkdir(parents=True, exist_ok=True)
        write(work)
        work.rename(folder)
    return folder


def _numeric_features(size: int) -> Features:
    return Features({key: Feature("float32", (size,)) for key in (STATE, ACTION)})


def _camera_features(height: int, width: int) -> Features:
    picture = Feature("video", (height, width, 3), ("height", "width", "channels"))
    return Features({**_numeric_features(14), CAMERA: picture})


def _curves(rng: np.random.Generator, length: int, size: int) -> dict[str, np.ndarray]:
    steps = rng.normal(0, 0.05, (length, size)).astype(np.float32)
    state = np.cumsum(steps, axis=0, dtype=np.float32)
    return {STATE: state, ACTION: state + steps}
