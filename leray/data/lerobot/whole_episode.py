"""Episodes given at once: arrays, pictures that are encoded already, stretches of videos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Feature, Features
from leray.data.image_statistics import ImageStatistics, sampled_frames
from leray.data.lerobot.encoded import EncodedPictures, Segment
from leray.data.lerobot.frames import check_episode
from leray.data.lerobot.images import decode_image
from leray.data.lerobot.pictures import image_column, is_encoded
from leray.data.lerobot.recording import EncoderSettings, Recording
from leray.data.lerobot.video_files import look_at
from leray.data.video.join import cut
from leray.data.video.options import VideoOptions
from leray.data.video.reader import VideoReader
from leray.data.video.track import read_track
from leray.errors import FeatureMismatchError

VideoSource = str | Path | tuple[str | Path, int, int]
"""An mp4, or some frames of one: path, number of the first frame, number of frames."""

_FRAMES_AT_ONCE = 16
_CODECS = {"libsvtav1": "av1", "libx264": "h264", "libx265": "hevc"}


@dataclass(frozen=True, slots=True)
class Clip:
    """Consecutive frames of an mp4."""

    path: Path
    first: int
    num_frames: int
    codec: str
    pix_fmt: str

    @classmethod
    def of(cls, source: VideoSource, camera: str, feature: Feature) -> Self:
        """Look at a video.

        Raises:
            DatasetError: it is missing or damaged.
            FeatureMismatchError: it shows another size than declared.
        """
        path = Path(source[0] if isinstance(source, tuple) else source)
        track = read_track(path)
        if (track.height, track.width) != feature.image_shape[:2]:
            raise FeatureMismatchError(
                f"{path} shows {track.height}x{track.width} pixels, {camera} declares "
                f"{feature.image_shape[0]}x{feature.image_shape[1]}"
            )
        first, count = source[1:] if isinstance(source, tuple) else (0, track.num_frames)
        return cls(path, first, count, track.codec, track.pix_fmt)

    def copy(self, target: Path, settings: EncoderSettings) -> Segment:
        """Make an mp4 of these frames, without encoding anew where the codec permits.

        Raises:
            DatasetError: the video has too few frames or is damaged.
            OSError: the disk is full.
        """
        options = _options_for(self, settings.options)
        cut(self.path, self.first, self.num_frames, target, options, fps=settings.whole_fps)
        return look_at(target)


@dataclass(frozen=True, slots=True)
class WholeEpisode:
    """An episode that fits the features; nothing of it is on disk."""

    num_frames: int
    tasks: list[str]
    """The task of each frame."""
    columns: dict[str, NDArray[Any]]
    """Numbers and text [frames, *frame_shape]."""
    pictures: dict[str, NDArray[np.uint8]]
    """Pictures to be encoded [frames, height, width, channels]."""
    images: dict[str, pa.ChunkedArray]
    """Encoded pictures of `image` features."""
    clips: dict[str, Clip]
    """Videos of `video` features."""
    timestamps: NDArray[Any] | None
    """Seconds from the start [frames]; None for a constant rate."""

    @classmethod
    def check(
        cls,
        features: Features,
        columns: Mapping[str, Any],
        task: str | Sequence[str],
        videos: Mapping[str, VideoSource],
    ) -> Self:
        """Check that what is given fits the features, and put it in order.

        Raises:
            FeatureMismatchError: it does not fit; one line tells why.
            DatasetError: a video is missing or damaged.
        """
        given = dict(columns)
        timestamps = _timestamps(given.pop(names.TIMESTAMP, None))
        for name in videos:
            if name not in features or features[name].dtype != "video":
                raise FeatureMismatchError(f"a video is given for {name!r}, no video feature")
            if name in given:
                raise FeatureMismatchError(f"{name!r} is given as a column and as a video")
        clips = {name: Clip.of(video, name, features[name]) for name, video in videos.items()}
        images = {
            name: image_column(given.pop(name))
            for name, feature in features.items()
            if feature.dtype == "image" and is_encoded(given.get(name))
        }
        lengths = {name: clip.num_frames for name, clip in clips.items()}
        lengths |= {name: len(column) for name, column in images.items()}
        if timestamps is not None:
            lengths[names.TIMESTAMP] = len(timestamps)
        others = features.select(n for n in features if n not in clips and n not in images)
        arrays = check_episode(others, given, task, lengths)
        num_frames = next(iter({**lengths, **{n: len(a) for n, a in arrays.items()}}.values()))
        return cls(
            num_frames=num_frames,
            tasks=[task] * num_frames if isinstance(task, str) else list(task),
            columns={name: a for name, a in arrays.items() if not features[name].is_visual},
            pictures={name: a for name, a in arrays.items() if features[name].is_visual},
            images=images,
            clips=clips,
            timestamps=timestamps,
        )

    def encode(
        self,
        features: Features,
        settings: EncoderSettings,
        path_of: Callable[[str], Path],
        stats: statistics.Statistics,
    ) -> EncodedPictures:
        """Bring videos to disk and images into columns.

        Args:
            features: of the dataset.
            settings: how to encode.
            path_of: gives the temporary path of a camera's video.
            stats: statistics of pictures that need not be computed.

        Raises:
            DatasetError, ConfigError: a picture cannot be encoded or decoded; nothing is left.
            OSError: the disk is full; nothing is left.
        """
        encoded = self._record(features.select(self.pictures), settings, path_of)
        encoded.images |= self.images
        try:
            for camera, clip in self.clips.items():
                encoded.segments[camera] = clip.copy(path_of(camera), settings)
            for name in [*self.images, *self.clips]:
                if name not in stats:
                    encoded.stats[name] = _statistics(name, features[name], encoded)
        except BaseException:
            encoded.discard()
            raise
        encoded.stats |= stats
        return encoded

    def _record(
        self, cameras: Features, settings: EncoderSettings, path_of: Callable[[str], Path]
    ) -> EncodedPictures:
        recording = Recording(cameras, settings, path_of)
        try:
            for frame in range(self.num_frames if cameras else 0):
                recording.add({name: pictures[frame] for name, pictures in self.pictures.items()})
        except BaseException:
            recording.abort()
            raise
        return recording.finish(self.num_frames)


def check_picture_statistics(features: Features, stats: statistics.Statistics) -> None:
    """Check statistics that are given with an episode.

    Raises:
        FeatureMismatchError: they are not of a visual feature, incomplete, or of another shape.
    """
    for name, entry in stats.items():
        if name not in features or not features[name].is_visual:
            raise FeatureMismatchError(
                f"statistics are given for {name!r}, which is no image or video feature"
            )
        shape = (features[name].image_shape[2], 1, 1)
        for key in statistics.KEYS:
            if key in statistics.QUANTILES and key not in entry:
                continue
            found = entry[key].shape if key in entry else None
            if found != ((1,) if key == "count" else shape):
                raise FeatureMismatchError(
                    f"statistics of {name!r}: {key} is "
                    f"{'missing' if found is None else f'of shape {list(found)}'}; "
                    f"needed are min, max, mean and std of shape {list(shape)} and a count [1]"
                )


def _timestamps(given: Any) -> NDArray[Any] | None:
    if given is None:
        return None
    seconds = np.asarray(given)
    if seconds.dtype.kind != "f" or seconds.ndim != 1 or not np.isfinite(seconds).all():
        raise FeatureMismatchError(
            f"timestamp is {seconds.dtype}{list(seconds.shape)}; give finite seconds as floats, "
            "one per frame, or leave it out"
        )
    return seconds


def _options_for(clip: Clip, options: VideoOptions) -> VideoOptions | None:
    """Return options that keep a clip's codec, so that it can share a file with copied ones."""
    codec = _CODECS.get(options.vcodec, options.vcodec.partition("_")[0])
    return replace(options, pix_fmt=clip.pix_fmt) if codec == clip.codec else None


def _statistics(
    name: str, feature: Feature, encoded: EncodedPictures
) -> statistics.FeatureStatistics:
    """Return the statistics of encoded pictures, from some that are spread over the episode."""
    gathered = ImageStatistics(feature.image_shape[2])
    if name in encoded.images:
        column = encoded.images[name]
        for frame in sampled_frames(len(column)).tolist():
            where = f"frame {frame} of {name}"
            gathered.add(decode_image(column[frame]["bytes"].as_py(), feature, where))
        return gathered.result()
    segment = encoded.segments[name]
    frames = sampled_frames(segment.num_frames)
    with VideoReader(segment.path) as video:
        for part in np.array_split(frames, -(-len(frames) // _FRAMES_AT_ONCE)):
            for picture in video.read(part):
                gathered.add(picture)
    return gathered.result()
