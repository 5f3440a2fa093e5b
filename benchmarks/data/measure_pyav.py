"""Frames per second of bare PyAV in stored order, two processes with half of a video each."""

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

PROCESSES = 2
VARIANTS = {
    "pyav": (1, False),
    "pyav threads=auto": (0, False),
    "pyav reformatter kept": (1, True),
}
"""Decoding threads of each process (0: as FFmpeg likes), and whether one converter serves all."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    file = str(next((arguments.root / "videos").rglob("*.mp4")))
    found = {}
    for name, (threads, keeps) in VARIANTS.items():
        with get_context("spawn").Pool(PROCESSES) as pool:
            jobs = [(file, part, arguments.seconds, threads, keeps) for part in range(PROCESSES)]
            found[name] = sum(pool.starmap(decode, jobs, chunksize=1))
    print(json.dumps(found))


def decode(file: str, part: int, seconds: float, threads: int, keeps: bool) -> float:
    """Return frames per second of decoding one half of a file to RGB arrays, over and over.

    Args:
        file: an mp4.
        part: which half.
        seconds: to measure for, at least.
        threads: of the decoder; 0 leaves the number to FFmpeg.
        keeps: convert all pictures with one converter instead of one each.
    """
    half(file, part, threads, keeps, limit=30)
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        count += half(file, part, threads, keeps)
    return count / took


def half(file: str, part: int, threads: int, keeps: bool, limit: int | None = None) -> int:
    """Decode one half of a file and return the number of pictures."""
    converter, count = VideoReformatter(), 0
    with av.open(file) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        frames = -(-stream.frames // PROCESSES)
        step = int(1 / (stream.average_rate * stream.time_base))
        container.seek(part * frames * step, stream=stream)
        for picture in container.decode(stream):
            if picture.pts < part * frames * step:
                continue
            if picture.pts >= (part + 1) * frames * step or count == limit:
                break
            if keeps:
                converter.reformat(picture, format="rgb24", threads=1).to_ndarray()
            else:
                picture.to_ndarray(format="rgb24")
            count += 1
    return count


if __name__ == "__main__":
    main()
