"""The one table of an mp4 that FFmpeg keeps to itself: how long after decoding a frame is shown.

FFmpeg states the decoding time of every packet as soon as a file is open, but its presentation time
only with the packet's data. Reading the table itself spares reading the whole file.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAX_TOP_LEVEL_BOXES = 1000  # plain files have a handful; more is a fragmented file
_PAUSE = -1  # an edit that starts here shows nothing


def composition_offsets(
    file: BinaryIO, size: int, track_id: int, num_packets: int
) -> NDArray[np.int64] | None:
    """Return presentation time minus decoding time of every packet of a track.

    Args:
        file: the open file; its position is changed.
        size: of the file, in bytes.
        track_id: the track, as the file numbers it.
        num_packets: number of packets that FFmpeg lists for the track.

    Returns:
        Ticks of the track's clock [num_packets], in decoding order, up to one constant for the
        whole track. None when the table cannot speak for FFmpeg's list: the file is fragmented,
        cut together by several edits, changes its sample description, or is damaged.
    """
    try:
        moov = _movie_box(file, size)
        if moov is None or _find(moov, b"mvex") is not None:
            return None
        for kind, track in _boxes(moov):
            if kind == b"trak" and _track_id(track) == track_id:
                return _offsets(track, num_packets)
    except struct.error:  # a box ends before its fields do
        pass
    return None


def _offsets(track: memoryview, num_packets: int) -> NDArray[np.int64] | None:
    table = _find(track, b"mdia", b"minf", b"stbl")
    if table is None or _num_edits(track) > 1 or _num_descriptions(table) != 1:
        return None
    box = _find(table, b"ctts")
    if box is None:
        return np.zeros(num_packets, dtype=np.int64)
    (num_entries,) = struct.unpack_from(">I", box, 4)
    if len(box) < 8 + 8 * num_entries:
        return None
    entries = np.frombuffer(
        box, dtype=[("count", ">u4"), ("offset", ">i4")], count=num_entries, offset=8
    )
    counts = entries["count"].astype(np.int64)
    if counts.sum() != num_packets:  # also keeps a forged count from filling the memory
        return None
    return np.repeat(entries["offset"].astype(np.int64), counts)


def _track_id(track: memoryview) -> int | None:
    header = _find(track, b"tkhd")
    if header is None:
        return None
    is_long = header[0] == 1  # 64-bit dates stand before the number
    return int(struct.unpack_from(">I", header, 20 if is_long else 12)[0])


def _num_edits(track: memoryview) -> int:
    """Count the stretches of media that a track plays; initial pauses do not count."""
    edits = _find(track, b"edts", b"elst")
    if edits is None:
        return 1
    (num_entries,) = struct.unpack_from(">I", edits, 4)
    entry = struct.Struct(">Qqi" if edits[0] == 1 else ">Iii")  # duration, start, rate
    starts = (entry.unpack_from(edits, 8 + entry.size * i)[1] for i in range(num_entries))
    return sum(start != _PAUSE for start in starts)


def _num_descriptions(table: memoryview) -> int:
    descriptions = _find(table, b"stsd")
    return 0 if descriptions is None else int(struct.unpack_from(">I", descriptions, 4)[0])


def _movie_box(file: BinaryIO, size: int) -> memoryview | None:
    position = 0
    for _ in range(_MAX_TOP_LEVEL_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return None
        length, kind = struct.unpack_from(">I4s", header)
        begin = 8
        if length == 1:
            length, begin = struct.unpack_from(">Q", header, 8)[0], 16
        if length < begin or position + length > size:
            return None
        if kind == b"moov":
            file.seek(position + begin)
            return memoryview(file.read(length - begin))
        position += length
    return None


def _find(data: memoryview, *path: bytes) -> memoryview | None:
    """Return the payload of the first box of this path."""
    for kind, payload in _boxes(data):
        if kind == path[0]:
            return payload if len(path) == 1 else _find(payload, *path[1:])
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8 or position + length > len(data):
            return
        yield kind, data[position + 8 : position + length]
        position += length
