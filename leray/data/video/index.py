"""Where the frames of a video lie in its file, and where decoding must start to show them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from leray.data.video.mp4 import composition_offsets

_Rows = NDArray[np.int64]  # position, size, pts, is key, is shown, description [packets, 6]


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a video in decoding order, which with B-frames is not the order shown.

    A frame's number counts the shown frames in the order of their time. A packet is known by its
    place in decoding order.
    """

    position: NDArray[np.int64]
    """Bytes from the start of the file [packets]."""
    size: NDArray[np.int64]
    """Bytes [packets]."""
    pts: NDArray[np.int64]
    """When the frame is shown [packets], in ticks of the track."""
    is_key: NDArray[np.bool_]
    """Whether decoding can start here [packets]."""
    is_shown: NDArray[np.bool_]
    """Whether the frame is part of the video [packets]; an edit list hides what it cuts off."""
    description: NDArray[np.int64]
    """Which of `extradata` the decoder needs for it [packets]."""
    extradata: tuple[bytes, ...]
    """What the decoder must know about the stream; several where unlike recordings were joined."""

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def packet_of(self) -> NDArray[np.int64]:
        """The packet of each frame [frames]."""
        shown = np.flatnonzero(self.is_shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]

    @cached_property
    def frame_of(self) -> NDArray[np.int64]:
        """The frame of each packet [packets]; -1 where it is not shown."""
        frames = np.full(len(self), -1, dtype=np.int64)
        frames[self.packet_of] = np.arange(len(self.packet_of))
        return frames

    @cached_property
    def start_of(self) -> NDArray[np.int64]:
        """The packet where decoding must start to show a frame [frames].

        That is the frame's key frame, but the one before it for a leading frame: stored after a key
        frame, shown before it, it may refer to both sides (an open group of pictures).
        """
        keys = self._keys
        group = np.searchsorted(keys, self.packet_of, side="right") - 1
        group -= self.is_leading[self.packet_of]
        start: NDArray[np.int64] = keys[np.maximum(group, 0)]
        return start

    @cached_property
    def is_leading(self) -> NDArray[np.bool_]:
        """Whether a packet is shown before the key frame that it follows [packets]."""
        keys = self._keys
        group = np.searchsorted(keys, np.arange(len(self)), side="right") - 1
        leading: NDArray[np.bool_] = self.pts < self.pts[keys[np.maximum(group, 0)]]
        return leading & (group >= 0)

    def num_readable(self, size: int) -> int:
        """Count the packets before the first that a file of so many bytes does not hold in full."""
        beyond = np.flatnonzero((self.position < 0) | (self.position + self.size > size))
        return int(beyond[0]) if len(beyond) else len(self)

    def key_before(self, packet: int) -> int:
        """Return the last packet before this one where decoding can start; the first if none."""
        place = int(np.searchsorted(self._keys, packet)) - 1
        return int(self._keys[max(place, 0)])

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        keys = np.flatnonzero(self.is_key)
        return keys if len(keys) and keys[0] == 0 else np.concatenate([[0], keys])


def read_index(container: Any, stream: Any, file: BinaryIO, size: int) -> PacketIndex:
    """List the packets of a video; their data is read only where the file's tables do not suffice.

    Args:
        container: the mp4 opened by PyAV, not read from yet.
        stream: the video in it.
        file: the same open file.
        size: of the file, in bytes.

    Raises:
        av.FFmpegError: the file is damaged.
        OSError: it cannot be read.
    """
    packets = (packet for packet in container.demux(stream) if packet.size)
    first = next(packets, None)
    position = file.tell()
    offsets = composition_offsets(file, size, stream.id, len(stream.index_entries))
    file.seek(position)  # where the demuxer believes it to be
    extradata = [stream.codec_context.extradata or b""]
    rows = None if offsets is None else _rows_of_tables(stream.index_entries, offsets, first)
    if rows is None:
        rows = _rows_of_packets(packets if first is None else chain([first], packets), extradata)
    rows = rows[rows[:, 1] > 0]  # an empty packet shows nothing, and would end decoding
    where, length, pts, is_key, is_shown, description = rows.T.copy()
    return PacketIndex(
        where, length, pts, is_key != 0, is_shown != 0, description, tuple(extradata)
    )


def _rows_of_tables(entries: Any, offsets: NDArray[np.int64], first: Any) -> _Rows | None:
    """Combine FFmpeg's list with the offsets; the first packet read tells their constant."""
    rows = np.array(
        [(e.pos, e.size, e.timestamp, e.is_keyframe, not e.is_discard, 0) for e in entries],
        dtype=np.int64,
    ).reshape(-1, 6)
    rows[:, 2] += offsets
    if first is not None:  # else the file ends before its first frame
        same = np.flatnonzero(rows[:, 0] == first.pos)
        if len(same) != 1 or first.pts is None:
            return None
        rows[:, 2] += first.pts - rows[same[0], 2]
    return rows


def _rows_of_packets(packets: Iterable[Any], extradata: list[bytes]) -> _Rows:
    """Read all packets; where they come with a new description, it is appended to `extradata`."""
    rows = []
    for packet in packets:
        if packet.is_corrupt or packet.pos is None:  # cut off by the end of the file
            break
        if packet.has_sidedata("new_extradata"):
            extradata.append(bytes(packet.get_sidedata("new_extradata")))
        pts = packet.dts if packet.pts is None else packet.pts
        rows.append(
            (
                packet.pos,
                packet.size,
                pts,
                packet.is_keyframe,
                not packet.is_discard,
                len(extradata) - 1,
            )
        )
    return np.array(rows, dtype=np.int64).reshape(-1, 6)
