"""One new dataset in the making: from its sources to all its files."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leray.data.lerobot import layout
from leray.data.lerobot.series import FileNames
from leray.data.tools.rewriting.clips import Clip, ClipFinder, Place, arrange
from leray.data.tools.rewriting.content import agree
from leray.data.tools.rewriting.declare import copy_extras, write_declarations
from leray.data.tools.rewriting.image_stats import PictureStatistics
from leray.data.tools.rewriting.output import Written, write_rows
from leray.data.tools.rewriting.source import Source
from leray.data.tools.rewriting.videos import encode_clip, write_video
from leray.data.video.options import VideoOptions
from leray.errors import DatasetError


@dataclass(frozen=True)
class RewriteOptions:
    """How new datasets are written."""

    without: frozenset[str] = frozenset()
    """Names of features to leave out."""
    encode: VideoOptions | None = None
    """How to encode all videos anew; None copies their bytes."""
    retime: bool = False
    """Count timestamps anew, as frame number / fps."""
    data_files_size_in_mb: int | None = None
    """Size of a data file (MiB) before the next one is begun; None takes that of the source."""
    video_files_size_in_mb: int | None = None
    """Likewise of a video file."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("data_files_size_in_mb", "video_files_size_in_mb"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise DatasetError(f"{name} must be a positive integer, not {value!r}")


@dataclass
class Progress:
    """Counts steps: one per episode and thing done with it."""

    report: Callable[[int, int], None]
    """Told how many steps are done, and how many there are."""
    total: int = 0
    done: int = field(default=0, init=False)

    def advance(self, steps: int = 1) -> None:
        """Report more steps as done."""
        self.done += steps
        self.report(self.done, self.total)


class Target:
    """A dataset to make.

    Args:
        sources: what it is made of, in order.
        options: how to write it.

    Raises:
        DatasetError: a source has no episodes, or sources do not fit together.
        FeatureMismatchError: features differ.
    """

    def __init__(self, sources: Sequence[Source], options: RewriteOptions) -> None:
        for source in sources:
            if not source.reader.num_episodes:
                raise DatasetError(f"{source.metadata.root}: there are no episodes to take")
        self._sources = sources
        self._options = options
        self._content = agree(sources, options.without)
        self._clips: dict[str, list[Clip]] = {}
        self._encoded_frames = 0
        self._unlike: list[str] = []

    @property
    def steps(self) -> int:
        """Steps of progress: each episode's rows, and its videos to find, encode and write."""
        passes = 2 if self._options.encode is None else 3
        episodes = sum(source.reader.num_episodes for source in self._sources)
        return episodes * (1 + passes * len(self._content.videos))

    def find_clips(self, progress: Progress) -> None:
        """Look into all video files that are needed.

        Raises:
            DatasetError: one is missing, damaged or too short.
        """
        for camera in self._content.videos:
            finder, clips = ClipFinder(camera), []
            for source in self._sources:
                for position in source.positions.tolist():
                    clips.append(finder.find(source, position))
                    progress.advance()
            self._clips[camera] = clips

    def purpose(self) -> dict[str, Any]:
        """Return everything that the content of the new dataset depends on, as JSON values.

        Raises:
            DatasetError: a file is missing.
        """
        return {
            "options": repr(self._options),
            "content": repr(self._content),
            "clips": {camera: list(map(repr, clips)) for camera, clips in self._clips.items()},
            "sources": [_described(source) for source in self._sources],
            "files": [_stamp(path) for path in sorted(self._files())],
        }

    def write(self, folder: Path, scratch: Path, progress: Progress) -> Written:
        """Write all files; videos that are there already are kept.

        Args:
            folder: the dataset's folder.
            scratch: folder for intermediate files, which save work to a later run.
            progress: advanced by what is left of `steps`.

        Raises:
            DatasetError: a source is damaged.
            OSError: the disk is full.
        """
        for part in ("data", "meta"):
            shutil.rmtree(folder / part, ignore_errors=True)
        clips = self._clips
        if (encode := self._options.encode) is not None:
            clips = {name: self._encode(name, encode, scratch, progress) for name in clips}
        data_mb = self._file_size("data_files_size_in_mb", layout.DATA_FILES_SIZE_IN_MB)
        video_mb = self._file_size("video_files_size_in_mb", layout.VIDEO_FILES_SIZE_IN_MB)
        films = {
            name: arrange(each, self._content.fps, video_mb * 2**20) for name, each in clips.items()
        }
        places = {name: each for name, (_, each) in films.items()}
        written = self._write_rows(folder, scratch, progress, places, data_mb)
        for camera, (files, _) in films.items():
            self._write_videos(folder, scratch, progress, camera, files, places[camera])
        write_declarations(
            folder,
            self._sources,
            self._content,
            written,
            data_files_size_in_mb=data_mb,
            video_files_size_in_mb=video_mb,
        )
        self._unlike = copy_extras(folder, self._sources)
        return written

    def notes(self, written: Written) -> list[str]:
        """Return what a person should know once everything is written, one line each."""
        several = len(self._sources) > 1
        notes = [
            f"{source.metadata.root}: {finding}" if several else finding
            for source in self._sources
            for finding in source.reader.findings
        ]
        robots = list(dict.fromkeys(source.metadata.robot_type for source in self._sources))
        if len(robots) > 1:
            notes.append(f"robot types differ ({', '.join(map(str, robots))}); the first is kept")
        if self._encoded_frames:
            notes.append(
                f"{self._encoded_frames} video frames were encoded anew: their episodes begin or "
                "end between key frames"
            )
        if self._options.encode and any(c.has_sound for each in self._clips.values() for c in each):
            notes.append("the sound of the videos was left out when they were encoded anew")
        if written.num_jittering and self._content.videos:
            notes.append(
                f"{written.num_jittering} episodes have timestamps other than frame number / fps, "
                "which LeRobot refuses with videos; `leray dataset convert --retime=true` counts "
                "them anew"
            )
        return notes + [
            f"{name} differs between the datasets; it was not copied" for name in self._unlike
        ]

    def _file_size(self, key: str, default: int) -> int:
        """Return the size asked for, else that of the first source, in MiB."""
        given = getattr(self._options, key) or self._sources[0].metadata.info.get(key)
        return given if type(given) is int and given > 0 else default

    def _encode(
        self, camera: str, options: VideoOptions, scratch: Path, progress: Progress
    ) -> list[Clip]:
        """Encode every clip of a camera into a file of its own."""
        clips = []
        for number, clip in enumerate(self._clips[camera]):
            target = scratch / camera / f"{number:06d}.mp4"
            clips.append(encode_clip(clip, target, options, self._content.fps))
            progress.advance()
        return clips

    def _write_rows(
        self,
        folder: Path,
        scratch: Path,
        progress: Progress,
        places: Mapping[str, Sequence[Place]],
        size_in_mb: int,
    ) -> Written:
        journal = scratch / "image_stats.jsonl"
        pictures = PictureStatistics(self._sources, self._content.cameras, journal)
        try:
            return write_rows(
                folder,
                self._sources,
                self._content,
                places=places,
                pictures=pictures,
                limit_bytes=size_in_mb * 2**20,
                retime=self._options.retime,
                on_episode=progress.advance,
            )
        finally:
            pictures.close()

    def _write_videos(
        self,
        folder: Path,
        scratch: Path,
        progress: Progress,
        camera: str,
        files: Sequence[Sequence[Clip]],
        places: Sequence[Place],
    ) -> None:
        names = FileNames(folder, layout.VIDEO_PATH, layout.CHUNKS_SIZE, camera)
        episodes = Counter(place.file for place in places)
        for number, clips in enumerate(files):
            target = names.path(number)
            if not target.is_file():
                parts = scratch / "parts"
                fps = self._content.fps
                self._encoded_frames += write_video(clips, target, fps=fps, scratch=parts)
            progress.advance(episodes[number])

    def _files(self) -> Iterable[Path]:
        """Return the files that are read."""
        files = {clip.path for clips in self._clips.values() for clip in clips}
        for source in self._sources:
            episodes, root = source.metadata.episodes, source.metadata.root
            files |= {root / episodes.files[file] for file in episodes.file[source.positions]}
            files |= {path for path in (root / "meta").rglob("*") if path.is_file()}
        return files


def _described(source: Source) -> dict[str, Any]:
    return {
        "root": str(source.metadata.root.absolute()),
        "episodes": source.reader.episodes,
        "renamed_tasks": dict(source.renamed_tasks),
        "episode_tasks": dict(source.episode_tasks),
    }


def _stamp(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(f"{path} is missing ({error}); copy the dataset again") from error
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]
