"""What a decoder must be told before a key frame, taken from the container's header.

An mp4 states the codec's configuration once for all frames. Parts that were encoded with other
settings can still share one file when every key frame carries its own configuration.
"""

import struct
from collections.abc import Iterator

_NAL_LENGTH_BYTES = 4


def key_frame_prefix(codec: str, extradata: bytes) -> bytes | None:
    """Return what to put before a key frame's packet so that it needs no header.

    Args:
        codec: canonical name.
        extradata: the header's configuration, as the mp4 stores it.

    Returns:
        Parameter sets (h264, hevc) or the sequence header (av1), in the form of packets; None when
        the codec is another one or the configuration cannot be read.
    """
    try:
        if codec == "h264":
            units = list(_avc_units(extradata))
        elif codec == "hevc":
            units = list(_hevc_units(extradata))
        elif codec == "av1" and len(extradata) > 4:
            return extradata[4:]
        else:
            return None
    except (struct.error, IndexError, ValueError):
        return None
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def _avc_units(data: bytes) -> Iterator[bytes]:
    _check_length_field(data[4])
    position = 5
    for mask in (0x1F, 0xFF):  # sequence, then picture parameter sets
        count = data[position] & mask
        position += 1
        for _ in range(count):
            unit, position = _unit(data, position)
            yield unit


def _hevc_units(data: bytes) -> Iterator[bytes]:
    _check_length_field(data[21])
    position = 23
    for _ in range(data[22]):
        (count,) = struct.unpack_from(">H", data, position + 1)
        position += 3
        for _ in range(count):
            unit, position = _unit(data, position)
            yield unit


def _unit(data: bytes, position: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">H", data, position)
    end = position + 2 + length
    if end > len(data):
        raise ValueError
    return data[position + 2 : end], end


def _check_length_field(value: int) -> None:
    if (value & 3) + 1 != _NAL_LENGTH_BYTES:
        raise ValueError
