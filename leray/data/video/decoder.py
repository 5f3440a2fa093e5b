"""Decoding chosen frames of a video: as few packets as possible, and never the same ones again."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import av
from av.packet import PacketSideData, packet_sidedata_type_from_literal

from leray.data.video.index import PacketIndex
from leray.errors import DatasetError

Take = Callable[[int, Any], None]
"""Receives the number of a frame and the decoded picture."""

_LONGEST_DELAY = 16
"""Packets that a decoder holds back at most before a picture comes out, per thread."""

_FALLBACK_PACKETS = 600
"""How far back decoding starts when a key frame turns out not to suffice; bounds the time lost."""


class FrameDecoder:
    """Feeds packets to a decoder and keeps its state, so that reading on does not start over.

    Args:
        file: the open file.
        size: of the file, in bytes.
        index: its packets.
        codec: PyAV's decoder of the stream, not opened yet.
        threads: decoding threads.
        name: what errors call the file.
    """

    def __init__(
        self, file: BinaryIO, size: int, index: PacketIndex, codec: Any, *, threads: int, name: str
    ) -> None:
        codec.thread_count = threads
        if threads > 1:
            codec.thread_type = "AUTO"
        self._file = file
        self._index = index
        self._num_readable = index.num_readable(size)
        self._codec = codec
        self._threads = threads
        self._name = name
        self._next_packet: int | None = None
        """What the decoder expects; None when it can only start over."""
        self._started_at = 0
        self._inside: set[int] = set()
        """Frames that went into the decoder and did not come out yet."""
        self._held: dict[int, Any] = {}
        """The picture delivered last, and those that came out after it."""
        self._last_frame = -1
        self._reason = ""
        self._leaves_out = False
        self._description = 0

    def decode(self, frames: Sequence[int], take: Take) -> None:
        """Decode frames.

        Args:
            frames: their numbers, ascending, each once.
            take: called once for each.

        Raises:
            DatasetError: the file ends before a frame, a frame is damaged, or reading failed.
        """
        for frame in frames:
            if self._index.packet_of[frame] >= self._num_readable:
                raise DatasetError(
                    f"{self._name} is cut off before frame {frame}: copy or record the file again"
                )
        try:
            for run in self._runs(frames):
                self._decode_run(run, take)
                self._last_frame = run[-1]
                self._held = {f: picture for f, picture in self._held.items() if f >= run[-1]}
        except BaseException:
            self._next_packet = None  # nobody knows what the decoder has seen: start over
            raise

    def forget(self) -> None:
        """Let go of the decoder's state and pictures."""
        self._next_packet = None
        self._held.clear()
        self._codec.flush_buffers()

    def _runs(self, frames: Sequence[int]) -> Iterator[list[int]]:
        """Split frames where starting at another key frame is cheaper than decoding on."""
        run: list[int] = []
        last_packet = -1
        for frame in frames:
            start = self._index.start_of[frame]
            if run and (start > last_packet + 1 or start < self._index.start_of[run[0]]):
                yield run
                run, last_packet = [], -1
            run.append(frame)
            last_packet = max(last_packet, int(self._index.packet_of[frame]))
        if run:
            yield run

    def _decode_run(self, run: list[int], take: Take) -> None:
        missing = set(run)
        for frame in missing & self._held.keys():
            take(frame, self._held[frame])
            missing.remove(frame)
        if not missing:
            return
        first = min(missing)
        start = int(self._index.start_of[first])
        reads_on = first == self._last_frame + 1
        if self._continues(first):
            reads_on = True
        else:
            self._start(start)
        self._collect(missing, run[-1], take, reads_on=reads_on)
        # Some encoders mark frames as key frames that still lean on earlier ones.
        for packet in (start, start - _FALLBACK_PACKETS):
            earlier = self._index.key_before(packet)
            if missing and earlier < self._started_at:
                self._start(earlier)
                self._collect(missing, run[-1], take, reads_on=True)
        if missing:
            raise DatasetError(
                f"{self._name}: frame {min(missing)} cannot be decoded ({self._reason}): "
                "copy or record the file again"
            )

    def _continues(self, frame: int) -> bool:
        """Tell whether the decoder can go on to a frame, at no more cost than starting over."""
        start = self._index.start_of[frame]
        if self._next_packet is None or start < self._started_at:
            return False
        comes_next = bool(start <= self._next_packet <= self._index.packet_of[frame])
        return comes_next or frame in self._inside

    def _start(self, packet: int) -> None:
        self._codec.flush_buffers()
        self._next_packet = self._started_at = packet
        self._inside.clear()
        self._held.clear()
        self._reason = "no picture comes out"

    def _collect(self, missing: set[int], last: int, take: Take, *, reads_on: bool) -> None:
        """Decode on until the missing frames have come out or cannot come any more."""
        last_packet = max(int(self._index.packet_of[frame]) for frame in missing)
        while missing and self._next_packet is not None:
            if self._next_packet <= last_packet or self._pushes_on(last_packet, reads_on=reads_on):
                self._leave_out(missing, last)
                pictures = self._send(self._next_packet)
            else:
                pictures = self._drain()
            for picture in pictures:
                frame = -1 if picture.pts is None else int(self._index.frame_of[picture.pts])
                self._inside.discard(frame)
                if picture.is_corrupt:
                    self._reason = "its data is damaged"
                    continue
                if frame in missing:
                    missing.remove(frame)
                    take(frame, picture)
                if frame >= last:
                    self._held[frame] = picture

    def _pushes_on(self, last_packet: int, *, reads_on: bool) -> bool:
        """Choose how to get the last pictures out: by sending more packets, or by draining.

        A drained decoder has to start over at a key frame. That is the better bargain for random
        access to short groups of pictures, and ruinous when reading on through long ones.
        """
        assert self._next_packet is not None
        sent_on = self._next_packet - last_packet - 1
        if self._next_packet >= self._num_readable or sent_on >= _LONGEST_DELAY * self._threads:
            return False
        delay = self._codec.reorder_depth + self._threads - 1
        lost = self._next_packet - self._index.key_before(self._next_packet)
        return reads_on or lost > 4 * delay

    def _leave_out(self, missing: set[int], last: int) -> None:
        """Have the decoder skip the next packet if nobody needs its picture.

        Only h264 says for sure that no other picture refers to one.
        """
        frame = int(self._index.frame_of[self._next_packet])
        leaves_out = self._codec.name == "h264" and frame < last and frame not in missing
        if leaves_out != self._leaves_out:
            self._codec.skip_frame = "NONREF" if leaves_out else "DEFAULT"
            self._leaves_out = leaves_out

    def _send(self, packet: int) -> list[Any]:
        """Send a packet to the decoder and return the pictures that come out."""
        data = self._load(packet)
        self._next_packet = packet + 1
        if not self._leaves_out:
            self._inside.add(int(self._index.frame_of[packet]))
        try:
            pictures: list[Any] = self._codec.decode(data)
        except av.FFmpegError as error:
            if (
                self._index.is_leading[packet]
                and self._index.key_before(packet) == self._started_at
            ):
                return []  # leans on what was skipped; who asks for it starts earlier
            self._reason = str(error.strerror)
            pictures = [p for p in self._drain() if p.pts is not None and p.pts < packet]
        return pictures

    def _drain(self) -> list[Any]:
        self._next_packet = None
        try:
            pictures: list[Any] = self._codec.decode(None)
        except av.FFmpegError as error:
            self._reason = str(error.strerror)
            return []
        return pictures

    def _load(self, packet: int) -> Any:
        size = int(self._index.size[packet])
        try:
            self._file.seek(int(self._index.position[packet]))
            data = self._file.read(size)
        except OSError as error:
            raise DatasetError(f"{self._name} cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise DatasetError(f"{self._name} became shorter while it was open: open it again")
        loaded = av.Packet(size)  # owns the padding that decoders may read beyond the end
        loaded.update(data)
        loaded.pts = packet  # comes back with the picture, whatever the file's clock says
        description = int(self._index.description[packet])
        if description != self._description:
            _describe(loaded, self._index.extradata[description])
            self._description = description
        return loaded


def _describe(packet: Any, extradata: bytes) -> None:
    """Tell the decoder, along with a packet, that the stream changes."""
    kind = packet_sidedata_type_from_literal("new_extradata")
    side_data = PacketSideData(kind, len(extradata))  # type: ignore[call-arg]  # stub lacks it
    side_data.update(extradata)
    side_data.to_packet(packet, move=True)
