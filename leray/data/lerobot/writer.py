"""Writing LeRobot v3.0 datasets, safe against being killed.

A saved episode is on disk when the call returns, in files that any reader of the format opens.
`session` says in which order files are written, `series` how they grow, `recovery` what a kill may
leave.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.encoded import EncodedPictures
from leray.data.lerobot.frames import FrameBuffer
from leray.data.lerobot.metadata import read_info
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.recovery import check_resumable, current_statistics, recover
from leray.data.lerobot.schema import BOOKKEEPING, check_writable, with_axis_names
from leray.data.lerobot.session import Session
from leray.data.statistics import Statistics
from leray.data.video.options import VideoOptions
from leray.errors import DatasetError
from leray.files import write_json

if TYPE_CHECKING:
    from leray.data.lerobot.recording import EncoderSettings, Recording
    from leray.data.lerobot.whole_episode import VideoSource


class DatasetWriter:
    """Records episodes into a dataset folder; made by `create` or `resume`.

    Features of dtype `video` are encoded while they are recorded, into one series of mp4 files per
    camera; those of dtype `image` become PNG files inside the data files, which are in memory until
    the episode is written. No more than 30 frames per camera wait in memory to be encoded.

    One writer per dataset at a time. Leaving the `with` block finalizes; after an error inside it,
    the frames of the unsaved episode are dropped and the saved ones are kept.

    Example:
        >>> features = Features({"action": Feature("float32", (2,))})  # doctest: +SKIP
        >>> with DatasetWriter.create("outputs/demo", fps=10, features=features) as writer:
        ...     writer.add_frame({"action": np.zeros(2, np.float32)}, task="reach")
        ...     writer.save_episode()  # doctest: +SKIP
    """

    def __init__(
        self,
        root: Path,
        info: dict[str, Any],
        *,
        tasks: Sequence[str] = (),
        stats: Statistics | None = None,
        episodes_per_commit: int = 1,
        video: VideoOptions | None = None,
        streaming_encoding: bool = True,
    ) -> None:
        self.root = root
        """The dataset's folder."""
        self.features = _recorded(info)
        """What every frame holds, without the bookkeeping columns."""
        self._session = Session(
            root, info, tasks=tasks, stats=stats or {}, episodes_per_commit=episodes_per_commit
        )
        self._video = video
        self._streaming_encoding = streaming_encoding
        self._buffer = FrameBuffer(self.features)
        self._recording: Recording | None = None
        self._failure = ""
        """Why the episode being recorded cannot be saved; empty when it can."""

    @classmethod
    def create(
        cls,
        root: str | Path,
        *,
        fps: int,
        features: Features,
        robot_type: str | None = None,
        data_files_size_in_mb: int = layout.DATA_FILES_SIZE_IN_MB,
        video_files_size_in_mb: int = layout.VIDEO_FILES_SIZE_IN_MB,
        episodes_per_commit: int = 1,
        video: VideoOptions | None = None,
        streaming_encoding: bool = True,
    ) -> Self:
        """Create a dataset in a new folder.

        Args:
            root: a folder that does not exist yet, or is empty.
            fps: frames per second, a positive integer.
            features: what every frame holds; bookkeeping columns (`timestamp`, ...) are added.
                Visual ones have shape [height, width, channels] or [channels, height, width]; axis
                names are added where there are none.
            robot_type: the robot's name.
            data_files_size_in_mb: size of a data file (MiB) before the next one is begun.
            video_files_size_in_mb: size of a video file (MiB) before the next one is begun.
            episodes_per_commit: how many episodes go to disk together. 1 keeps every saved episode
                through a kill; more is faster for bulk conversion, and a kill loses those not yet
                written, which wait in memory (images too, videos on disk).
            video: how videos are encoded; LeRobot's defaults when None.
            streaming_encoding: encode videos in threads beside the caller; otherwise `add_frame`
                returns when its pictures are encoded.

        Raises:
            DatasetError: the folder is in use, or an option or a feature is not writable.
            ConfigError: this machine cannot encode such videos.
        """
        if "://" in str(root):
            raise DatasetError(f"{root} is no local folder; write to one, and push it from there")
        root = Path(root)
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DatasetError(f"{root} exists and is not empty; resume it, or give a new folder")
        _positive(fps, "fps")
        _positive(data_files_size_in_mb, "data_files_size_in_mb")
        _positive(video_files_size_in_mb, "video_files_size_in_mb")
        _positive(episodes_per_commit, "episodes_per_commit")
        if reason := check_writable(features):
            raise DatasetError(f"cannot create {root}: {reason}")
        cameras = [name for name, feature in features.items() if feature.dtype == "video"]
        info = {
            "codebase_version": layout.VERSIONS[-1],
            "robot_type": robot_type,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": layout.CHUNKS_SIZE,
            "data_files_size_in_mb": data_files_size_in_mb,
            "video_files_size_in_mb": video_files_size_in_mb,
            "fps": fps,
            "splits": {},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH if cameras else None,
            "features": Features({**with_axis_names(features), **BOOKKEEPING}).to_info(),
        }
        writer = cls(
            root,
            info,
            episodes_per_commit=episodes_per_commit,
            video=video,
            streaming_encoding=streaming_encoding,
        )
        if cameras:
            writer._settings.check(features.select(cameras))
        write_json(root / layout.INFO, info)
        return writer

    @classmethod
    def resume(
        cls,
        root: str | Path,
        *,
        episodes_per_commit: int = 1,
        video: VideoOptions | None = None,
        streaming_encoding: bool = True,
    ) -> Self:
        """Go on writing a v3.0 dataset, in new files; leftovers of a kill are removed first.

        Args:
            root: the dataset's folder.
            episodes_per_commit: as in `create`.
            video: as in `create`; may differ from how the other videos are encoded.
            streaming_encoding: as in `create`.

        Raises:
            DatasetError: there is no v3.0 dataset, it is damaged, or it has features that are not
                writable.
            ConfigError: this machine cannot encode such videos.
        """
        root = Path(root)
        _positive(episodes_per_commit, "episodes_per_commit")
        info = read_info(root)
        check_resumable(root, info)
        recover(root, info)
        reader = DatasetReader.open(root)
        declared = Features.from_info(info["features"])
        if absent := [n for n in declared if n not in reader.features and n not in BOOKKEEPING]:
            raise DatasetError(f"{root} declares feature {absent[0]!r} but holds none of its data")
        info["total_episodes"], info["total_frames"] = reader.num_episodes, reader.num_frames
        for key, default in (
            ("chunks_size", layout.CHUNKS_SIZE),
            ("data_files_size_in_mb", layout.DATA_FILES_SIZE_IN_MB),
            ("video_files_size_in_mb", layout.VIDEO_FILES_SIZE_IN_MB),
        ):
            info[key] = _positive(info.get(key, default), f"{root}: {key}")
        stats = current_statistics(reader)
        reader.close()
        writer = cls(
            root,
            info,
            tasks=reader.tasks,
            stats=stats,
            episodes_per_commit=episodes_per_commit,
            video=video,
            streaming_encoding=streaming_encoding,
        )
        if cameras := [n for n, feature in declared.items() if feature.dtype == "video"]:
            writer._settings.check(declared.select(cameras))
        return writer

    @property
    def num_episodes(self) -> int:
        """Number of saved episodes, those of earlier sessions included."""
        return self._session.num_episodes

    @property
    def num_frames(self) -> int:
        """Number of frames in saved episodes."""
        return self._session.num_frames

    def add_frame(self, frame: Mapping[str, Any], task: str) -> None:
        """Add one frame to the episode being recorded; values are copied.

        Args:
            frame: exactly the declared features, each of its declared dtype and shape (a scalar may
                be 0-d); pictures are uint8.
            task: what the robot is asked to do.

        Raises:
            FeatureMismatchError: the frame does not fit and is not added; one line names every
                difference.
            DatasetError: the writer is finalized, or a picture could not be encoded; the episode
                cannot be saved then, see `clear_episode_buffer`.
            OSError: the disk is full; likewise.
        """
        self._check_usable()
        pictures = self._buffer.add(frame, task)
        if not pictures:
            return
        try:
            if self._recording is None:
                self._recording = self._start_recording()
            self._recording.add(pictures)
        except BaseException as error:
            self.clear_episode_buffer()
            self._failure = str(error) or type(error).__name__
            raise

    def save_episode(self) -> int:
        """Save the recorded frames as an episode and return its index.

        Raises:
            DatasetError: there are no frames, a picture could not be encoded, or the writer is
                finalized.
            OSError: the disk is full; earlier episodes are untouched, go on with `resume`.
        """
        self._check_usable()
        if not len(self._buffer):
            raise DatasetError("there is no frame to save; call add_frame first")
        columns, tasks = self._buffer.columns(), self._buffer.tasks
        recording, self._recording = self._recording, None
        self._buffer.clear()
        pictures = EncodedPictures() if recording is None else recording.finish(len(tasks))
        return self._session.add(columns, tasks, pictures)

    def add_episode(
        self,
        columns: Mapping[str, Any],
        task: str | Sequence[str],
        *,
        videos: "Mapping[str, VideoSource] | None" = None,
        stats: Statistics | None = None,
    ) -> int:
        """Save a whole episode and return its index.

        Args:
            columns: per declared feature an array [frames, *shape], or [frames] for scalars, in its
                exact dtype; pictures are uint8. An `image` feature may be given encoded instead: a
                list of files' contents, or an Arrow array of them or of `{bytes, path}`. A column
                `timestamp` (seconds from the start [frames], float) may be added; without it, frame
                k is at k/fps.
            task: what the robot is asked to do; one text for all frames, or one per frame.
            videos: per `video` feature that is not in `columns` an mp4, as its path or as (path,
                number of the first frame, number of frames). Its frames are copied, without
                encoding them anew unless they begin between key frames; the file is left as it is.
            stats: statistics of visual features where they are known, which spares decoding
                pictures that are given encoded.

        Raises:
            FeatureMismatchError: the episode does not fit; one line names every difference.
            DatasetError: the writer is finalized, frames of another episode wait to be saved, or a
                picture or video is damaged.
            OSError: the disk is full; earlier episodes are untouched, go on with `resume`.
        """
        # PyAV and Pillow where episodes are written only.
        from leray.data.lerobot.whole_episode import WholeEpisode, check_picture_statistics

        self._check_usable()
        self._check_nothing_waits()
        check_picture_statistics(self.features, stats or {})
        whole = WholeEpisode.check(self.features, columns, task, videos or {})
        pictures = whole.encode(
            self.features, self._settings, self._session.temporary_video, stats or {}
        )
        return self._session.add(whole.columns, whole.tasks, pictures, whole.timestamps)

    def clear_episode_buffer(self) -> None:
        """Drop the frames that were added but not saved."""
        self._buffer.clear()
        self._failure = ""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.abort()

    def finalize(self) -> None:
        """Write what is pending and merge the session's files; nothing can be added afterwards.

        Raises:
            DatasetError: frames were added but neither saved nor cleared.
            OSError: the disk is full; saved episodes are untouched, go on with `resume`.
        """
        if self._session.is_finalized:
            return
        self._check_usable()
        self._check_nothing_waits()
        self._session.finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.clear_episode_buffer()
            if not self._session.is_usable:
                return
        self.finalize()

    @cached_property
    def _settings(self) -> "EncoderSettings":
        from leray.data.lerobot.recording import EncoderSettings

        options = self._video or VideoOptions()
        return EncoderSettings(self._session.fps, options, self._streaming_encoding)

    def _start_recording(self) -> "Recording":
        from leray.data.lerobot.recording import Recording

        cameras = [name for name, feature in self.features.items() if feature.is_visual]
        path_of = self._session.temporary_video
        return Recording(self.features.select(cameras), self._settings, path_of)

    def _check_usable(self) -> None:
        self._session.check_usable()
        if self._failure:
            raise DatasetError(
                f"the episode being recorded cannot be saved: {self._failure}; call "
                "clear_episode_buffer and record it again"
            )

    def _check_nothing_waits(self) -> None:
        if len(self._buffer):
            raise DatasetError(
                f"{len(self._buffer)} frames are not saved; "
                "call save_episode or clear_episode_buffer first"
            )


def _recorded(info: Mapping[str, Any]) -> Features:
    declared = Features.from_info(info["features"])
    return declared.select(name for name in declared if name not in BOOKKEEPING)


def _positive(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise DatasetError(f"{name} must be a positive integer, not {value!r}")
    return value
