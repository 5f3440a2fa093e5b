"""Joining and cutting mp4 files by frames; bytes are copied wherever the codec allows it."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from leray.data.video.encoder import VideoEncoder, VideoOptions
from leray.data.video.output import Mp4Output, writing
from leray.data.video.parameters import key_frame_prefix
from leray.data.video.track import Sound, VideoTrack, open_video, read_track
from leray.errors import DatasetError

_RATE_TOLERANCE = 0.01
_VCODECS = {"h264": "h264", "hevc": "hevc", "av1": "libsvtav1"}


@dataclass(frozen=True)
class _Piece:
    """Packets that show consecutive frames of a track and need none outside."""

    track: VideoTrack
    first_packet: int
    num_frames: int
    sound: Sound | None

    @property
    def shown(self) -> NDArray[np.int64]:
        """Place of every packet in the order of showing, from 0 [num_frames]."""
        frames = self.track.index.frame_of[self.first_packet :][: self.num_frames]
        shown: NDArray[np.int64] = frames - frames.min()
        return shown

    @property
    def delay(self) -> int:
        """Frames by which showing must lag behind decoding."""
        return int((np.arange(self.num_frames) - self.shown).max())


def concatenate(sources: Sequence[Path], target: Path, *, fps: int | None = None) -> None:
    """Join videos into one without encoding anew: frame k of a source follows those before it.

    Frames are shown at exact multiples of 1/fps, whatever small errors the sources' times have.
    Sound is carried along, to the nearest packet (some 20 ms).

    Args:
        sources: mp4 files of the same codec, size, pixel format, frame rate and sound, in order.
        target: the mp4 to make or replace, which may be a source; complete or untouched.
        fps: frames per second; those of the first source when None.

    Raises:
        DatasetError: a source is missing, damaged, or does not fit the first.
        OSError: the disk is full; the target is untouched.
    """
    if not sources:
        raise DatasetError(f"there is nothing to join into {target}; give at least one video")
    tracks = [read_track(path) for path in sources]
    rate = _rate(tracks[0], fps)
    for track in tracks:
        _check_fits(tracks[0], track, rate)
    _write(target, rate, [_whole(track) for track in tracks])


def cut(
    source: Path,
    start_frame: int,
    num_frames: int,
    target: Path,
    options: VideoOptions | None = None,
    *,
    fps: int | None = None,
) -> bool:
    """Make a video of consecutive frames of another; the first is shown at 0.

    Bytes are copied when the piece begins with a key frame and needs no frame beyond its end; else
    the frames are decoded and encoded anew. Sound is copied, to the nearest packet (some 20 ms).

    Args:
        source: an mp4.
        start_frame: number of the first frame to take.
        num_frames: how many to take.
        target: the mp4 to make or replace, which may be the source; complete or untouched.
        options: how to encode where that is needed; when None, the source's codec and pixel format
            with the other defaults.
        fps: frames per second; those of the source when None.

    Returns:
        True when bytes were copied, False when frames were encoded anew.

    Raises:
        DatasetError: the source is missing, damaged, has too few frames, or needs options.
        ConfigError: this machine cannot encode with these options.
        OSError: the disk is full; the target is untouched.
    """
    track = read_track(source)
    if start_frame < 0 or num_frames < 1 or start_frame + num_frames > track.num_frames:
        raise DatasetError(
            f"{num_frames} frames from frame {start_frame} cannot be cut out of {source}, "
            f"which has frames 0 to {track.num_frames - 1}"
        )
    rate = _rate(track, fps)
    piece = _piece(track, start_frame, num_frames)
    if piece is not None:
        _write(target, rate, [piece])
        return True
    if options is None:
        if track.codec not in _VCODECS:
            raise DatasetError(f"{source} is {track.codec}, which is not written; give options")
        options = VideoOptions(vcodec=_VCODECS[track.codec], pix_fmt=track.pix_fmt)
    sound = _sound(track, start_frame, num_frames)
    if sound is None:
        _encode(track, start_frame, num_frames, VideoEncoder(target, fps=rate, options=options))
        return False
    silent = target.with_name(f".{target.name}.silent.tmp")
    try:
        _encode(track, start_frame, num_frames, VideoEncoder(silent, fps=rate, options=options))
        _write(target, rate, [replace(_whole(read_track(silent)), sound=sound)])
    finally:
        silent.unlink(missing_ok=True)
    return False


def _rate(track: VideoTrack, fps: int | None) -> Fraction:
    rate = track.rate if fps is None else Fraction(fps)
    if rate <= 0:
        raise DatasetError(f"{track.path} does not tell its frame rate; give fps")
    return rate


def _check_fits(first: VideoTrack, track: VideoTrack, rate: Fraction) -> None:
    """Check that a track can follow the first in one file at this rate.

    Raises:
        DatasetError: it cannot; one line names both.
    """
    # Times are rounded in some files: the rate of a few frames is off, the last one's place is not.
    drift = (track.num_frames - 1) * abs(rate / (track.rate or rate) - 1)
    if drift > max(0.5, _RATE_TOLERANCE * track.num_frames):
        raise DatasetError(
            f"{track.path} has {float(track.rate):g} frames per second, {first.path} is joined at "
            f"{float(rate):g}; encode it again at that rate"
        )
    is_readable = _is_uniform([first, track]) or None not in _prefixes(first) + _prefixes(track)
    if track.format != first.format or track.sound != first.sound or not is_readable:
        raise DatasetError(
            f"{track.path} ({track}) cannot follow {first.path} ({first}) in one file; "
            "encode it again with the same settings"
        )


def _is_uniform(tracks: Sequence[VideoTrack]) -> bool:
    """Tell whether one header speaks for all frames."""
    return len({extradata for track in tracks for extradata in track.index.extradata}) == 1


def _prefixes(track: VideoTrack) -> list[bytes | None]:
    return [key_frame_prefix(track.codec, extradata) for extradata in track.index.extradata]


def _whole(track: VideoTrack) -> _Piece:
    piece = _piece(track, 0, track.num_frames)
    if piece is None:
        raise DatasetError(
            f"{track.path} cannot be joined as it is: it does not begin with a key frame, or an "
            "edit list hides some frames; encode it again"
        )
    return piece


def _piece(track: VideoTrack, start_frame: int, num_frames: int) -> _Piece | None:
    """Find the packets of a range of frames; None when they also need others."""
    index = track.index
    first = int(index.packet_of[start_frame])
    frames = np.sort(index.frame_of[first : first + num_frames])
    wanted = np.arange(start_frame, start_frame + num_frames)
    if not index.is_key[first] or not np.array_equal(frames, wanted):
        return None
    return _Piece(track, first, num_frames, _sound(track, start_frame, num_frames))


def _sound(track: VideoTrack, start_frame: int, num_frames: int) -> Sound | None:
    if track.sound is None or not track.rate:
        return None
    start_s = track.start_s + float(start_frame / track.rate)
    return Sound(track.path, start_s, float(num_frames / track.rate))


def _write(target: Path, rate: Fraction, pieces: Sequence[_Piece]) -> None:
    """Copy pieces into one mp4, one after the other."""
    with Mp4Output(target, rate) as output:
        with open_video(pieces[0].track.path) as (_, template, _):
            video = output.container.add_stream_from_template(template, opaque=True)
        packets: Iterable[Any] = _video_packets(pieces, video, rate)
        if pieces[0].sound is not None:
            with open_video(pieces[0].sound.path) as (container, _, _):
                template = container.streams.audio[0]
                audio = output.container.add_stream_from_template(template, opaque=True)
            sound = _sound_packets(pieces, audio, rate)
            packets = heapq.merge(packets, sound, key=lambda packet: packet.dts * packet.time_base)
        with writing(target):
            for packet in packets:
                output.container.mux(packet)


def _video_packets(pieces: Sequence[_Piece], stream: Any, rate: Fraction) -> Iterator[Any]:
    stream.time_base = tick = 1 / rate  # the header will make the stream's finer, not the packets'
    delay = max(piece.delay for piece in pieces)
    is_uniform = _is_uniform([piece.track for piece in pieces])
    offset = 0
    for piece in pieces:
        index, first = piece.track.index, piece.first_packet
        prefixes = [b""] * len(index.extradata) if is_uniform else _prefixes(piece.track)
        contents = piece.track.packets(first, piece.num_frames)
        for place, (frame, content) in enumerate(zip(piece.shown, contents, strict=True)):
            is_key = bool(index.is_key[first + place])
            if is_key:
                content = (prefixes[index.description[first + place]] or b"") + content
            packet = av.Packet(len(content))
            packet.update(content)
            packet.stream, packet.time_base = stream, tick
            packet.pts, packet.dts = offset + int(frame), offset + place - delay
            packet.duration, packet.is_keyframe = 1, is_key
            yield packet
        offset += piece.num_frames


def _sound_packets(pieces: Sequence[_Piece], stream: Any, rate: Fraction) -> Iterator[Any]:
    tick = stream.time_base
    offset, last = 0, -1
    for piece in pieces:
        if piece.sound is not None:
            for time_s, packet in piece.sound.packets():
                packet.stream, packet.time_base = stream, tick
                packet.pts = packet.dts = int((offset / rate + time_s) / tick)
                if packet.pts > last:  # where parts meet, rounding may place two at one time
                    last = packet.pts
                    yield packet
        offset += piece.num_frames


def _encode(track: VideoTrack, start_frame: int, num_frames: int, encoder: VideoEncoder) -> None:
    """Decode frames and encode them anew."""
    with encoder:
        for picture in track.decode(start_frame, num_frames):
            encoder.add_picture(picture)
