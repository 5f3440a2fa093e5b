"""Frames by number equal a reading from start to end, bit for bit, at the least decoding."""

import io
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

SAMPLES = Path(__file__).parents[4] / "shared" / "data"


class CountingFile(io.BytesIO):
    """A file that notes what is read of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        position, content = self.tell(), super().read(size)
        self.reads.append((position, len(content)))
        return content


def counting(path):
    """A reader of the file, and the list where each packet that it reads appears."""
    file = CountingFile(path.read_bytes())
    reader = VideoReader(file)
    file.reads.clear()
    return reader, file.reads


def test_description(any_video):
    with VideoReader(any_video.path) as reader:
        assert (reader.num_frames, reader.height, reader.width) == any_video.frames.shape[:3]
        assert reader.codec == any_video.path.name.split()[0].removesuffix(".mp4")
        assert reader.fps == 30.0
        np.testing.assert_array_equal(reader.timestamps, any_video.timestamps)
        assert reader.timestamps[0] == 0.0
        assert reader.keyframes[0] == 0
    expected = {"10 bit": "yuv420p10le", "444": "yuv444p"}
    ending = next((e for e in expected if any_video.path.stem.endswith(e)), None)
    assert reader.pix_fmt == expected.get(ending, "yuv420p")


@pytest.mark.parametrize("threads", [1, 2])
def test_any_order_gives_the_frames_of_a_reading_from_start_to_end(any_video, threads):
    frames, rng = any_video.frames, np.random.default_rng(5)
    with VideoReader(any_video.path, threads=threads) as reader:
        for number in rng.integers(0, len(frames), 40):
            np.testing.assert_array_equal(reader.read([number])[0], frames[number])
        for _ in range(25):
            numbers = rng.integers(0, len(frames), rng.integers(1, 12))  # with repeats
            np.testing.assert_array_equal(reader.read(numbers), frames[numbers])
        for number in reversed(range(len(frames))):
            np.testing.assert_array_equal(reader.read([number])[0], frames[number])
        np.testing.assert_array_equal(reader.read(range(len(frames))), frames)


@pytest.mark.parametrize("step", [1, 7, 16])
def test_piece_by_piece(any_video, step):
    frames = any_video.frames
    with VideoReader(any_video.path) as reader:
        for start in range(0, len(frames), step):
            piece = np.arange(start, min(start + step, len(frames)))
            np.testing.assert_array_equal(reader.read(piece), frames[piece])


def test_windows_that_overlap_and_skip(any_video):
    frames, rng = any_video.frames, np.random.default_rng(6)
    with VideoReader(any_video.path) as reader:
        for start in np.cumsum(rng.integers(0, 4, 25)):
            window = np.clip(start + np.array([-3, -1, 0, 2]), 0, len(frames) - 1)
            np.testing.assert_array_equal(reader.read(window), frames[window])


@pytest.mark.parametrize("kind", ["h264 g=2", "h264 g=250", "h264 open", "hevc open", "av1 g=250"])
@pytest.mark.parametrize("step", [1, 16])
def test_reading_on_decodes_no_packet_twice(video, kind, step):
    reader, reads = counting(video(kind).path)
    for start in range(0, reader.num_frames, step):
        reader.read(np.arange(start, min(start + step, reader.num_frames)))
    assert len(reads) == len(set(reads)) == reader.num_frames


def test_a_group_is_decoded_once_and_no_further_than_needed(video, packets_of):
    path = video("h264 g=10").path
    packets = [(p.position, p.size) for p in packets_of(path)]
    reader, reads = counting(path)
    np.testing.assert_array_equal(reader.keyframes, [0, 10, 20, 30, 40, 50])
    for wanted, expected in [
        ([23], range(20, 24)),
        ([47, 42, 3, 47, 40, 0], [*range(4), *range(40, 48)]),
        ([17, 17, 17], range(10, 18)),
        ([39, 40, 31], range(30, 41)),
        ([], []),
    ]:
        reads.clear()
        reader.read(wanted)
        assert set(packets[i] for i in expected) <= set(reads)
        assert len(reads) <= len(expected) + 2  # what pushes the last picture out


def test_random_access_to_short_groups_decodes_nothing_in_excess(video, packets_of):
    path = video("h264 g=2").path
    packets = [(p.position, p.size) for p in packets_of(path)]
    reader, reads = counting(path)
    for number in (40, 13, 55, 2):
        reads.clear()
        reader.read([number])
        assert reads == packets[number - number % 2 : number + 1]


@pytest.mark.parametrize("kind", ["h264 open", "hevc g=2", "hevc open"])
def test_frames_that_lean_on_the_group_before_start_there_at_once(video, kind):
    reader, reads = counting(video(kind).path)
    for number in reversed(range(reader.num_frames)):
        reads.clear()
        reader.read([number])
        assert len(reads) == len(set(reads))


def test_opening_does_not_read_the_pictures(make):
    path = make("libx264", options={"qp": "0", "g": "4"}, size=(240, 320), num_frames=99)
    assert path.stat().st_size > 700_000
    file = CountingFile(path.read_bytes())
    with VideoReader(file) as reader:
        assert sum(size for _, size in file.reads) < 200_000
        assert reader.num_frames == 99


def test_uneven_times(make, plain_loop):
    ticks = np.cumsum(np.random.default_rng(1).integers(200, 900, 50))
    expected = plain_loop(make(ticks=[int(tick) for tick in ticks]))
    with VideoReader(expected.path) as reader:
        np.testing.assert_array_equal(reader.timestamps, expected.timestamps)
        np.testing.assert_allclose(np.diff(reader.timestamps), np.diff(ticks) / 15360, atol=1e-9)
        np.testing.assert_array_equal(reader.read([31, 3]), expected.frames[[31, 3]])
        for number, time_s in enumerate(reader.timestamps):
            assert reader.frame_at(time_s) == number


def test_frame_at(video):
    with VideoReader(video("h264 g=2").path) as reader:  # 60 frames at 30 per second
        times_s = [-1.0, 0.0, 0.016, 0.0175, 1.0, 1.049, 59 / 30, 99.0]
        assert [reader.frame_at(time_s) for time_s in times_s] == [0, 0, 0, 1, 30, 31, 59, 59]


def test_one_frame(make, plain_loop):
    expected = plain_loop(make(num_frames=1))
    with VideoReader(expected.path) as reader:
        assert reader.num_frames == 1
        np.testing.assert_array_equal(reader.read([0, 0]), expected.frames[[0, 0]])
        assert reader.read([]).shape == (0, 48, 64, 3)


def test_odd_sizes(make, plain_loop):
    expected = plain_loop(make("libx264", "yuv444p", size=(40, 56), num_frames=10))
    with VideoReader(expected.path) as reader:
        np.testing.assert_array_equal(reader.read(range(10)), expected.frames)


@pytest.mark.parametrize(
    "movflags",
    ["faststart", "negative_cts_offsets", "frag_keyframe+empty_moov", "frag_keyframe+dash"],
)
def test_layouts_of_the_file(make, plain_loop, movflags):
    path = make(options={"g": "12"}, container_options={"movflags": movflags})
    expected = plain_loop(path)
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(reader.timestamps, expected.timestamps)
        numbers = np.random.default_rng(2).integers(0, 60, 20)
        np.testing.assert_array_equal(reader.read(numbers), expected.frames[numbers])


@pytest.mark.parametrize("kind", ["h264 g=250", "h264 open", "hevc open"])
def test_frames_cut_off_by_an_edit_list_do_not_count(video, kind, tmp_path, plain_loop):
    path = tmp_path / "cut.mp4"
    with av.open(str(video(kind).path)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts -= 13 * 512
                packet.dts -= 13 * 512
                target.mux(packet)
    expected = plain_loop(path)
    with VideoReader(path) as reader:
        assert reader.num_frames == len(expected.frames) == 47
        np.testing.assert_array_equal(reader.timestamps, expected.timestamps)
        np.testing.assert_array_equal(reader.read(range(47)), video(kind).frames[13:])
        for number in (46, 0, 20, 5):
            np.testing.assert_array_equal(reader.read([number])[0], expected.frames[number])


def test_unlike_recordings_joined_without_encoding(tmp_path, make, plain_loop):
    """The decoder has to be told where the second begins, and again when going back."""
    path = tmp_path / "joined.mp4"
    first = make(options={"g": "10"}, num_frames=20, suffix=".a.mp4")
    second = make("libx264", "yuv444p", {"g": "5", "bf": "0"}, num_frames=20, suffix=".b.mp4")
    with av.open(str(path), "w") as target:
        stream = None
        for part, source_path in enumerate((first, second)):
            with av.open(str(source_path)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                extradata = source.streams.video[0].codec_context.extradata
                for packet in source.demux(video=0):
                    if not packet.size:
                        continue
                    if part == 1 and packet.pts == 0:
                        kind = av.packet.packet_sidedata_type_from_literal("new_extradata")
                        side_data = av.packet.PacketSideData(kind, len(extradata))
                        side_data.update(extradata)
                        side_data.to_packet(packet)
                    packet.stream = stream
                    packet.pts += part * 20 * 512
                    packet.dts += part * 20 * 512
                    target.mux(packet)
    frames = np.concatenate([plain_loop(first).frames, plain_loop(second).frames])
    with VideoReader(path) as reader:
        for number in np.random.default_rng(3).integers(0, 40, 30):
            np.testing.assert_array_equal(reader.read([number])[0], frames[number])
        np.testing.assert_array_equal(reader.read(range(40)), frames)


def test_file_objects_are_taken_over(video):
    expected = video("av1 g=2")
    file = io.BytesIO(expected.path.read_bytes())
    with VideoReader(file, name="camera") as reader:
        np.testing.assert_array_equal(reader.read([30, 7]), expected.frames[[30, 7]])
        with pytest.raises(DatasetError, match=r"^camera has no frame 60; there are: 0 to 59$"):
            reader.read([60])
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        reader.read([7])


def test_readers_in_threads(video):
    expected = video("h264 open")
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        with VideoReader(expected.path) as reader:
            numbers = rng.integers(0, 60, 60)
            read = np.concatenate([reader.read([number]) for number in numbers])
            wrong.append(np.any(read != expected.frames[numbers]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 4


def test_a_failed_read_can_be_repeated(video):
    class Unsteady(io.BytesIO):
        fails_in = -1

        def read(self, size: int | None = -1) -> bytes:
            self.fails_in -= 1
            if self.fails_in == 0:
                raise TimeoutError("no answer")
            return super().read(size)

    expected = video("h264 g=250")
    file = Unsteady(expected.path.read_bytes())
    with VideoReader(file, name="far") as reader:
        for fails_in in (5, 12, 30):
            file.fails_in = fails_in
            with pytest.raises(DatasetError, match=r"^far cannot be read: no answer$"):
                reader.read(range(60))
            np.testing.assert_array_equal(reader.read(range(50)), expected.frames[:50])


@pytest.mark.parametrize("name", ["gr1_picknplace_v20", "so101_rosbag_v30"])
def test_recorded_datasets(name, plain_loop):
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the recorded dataset {name} is not on this machine")
    dataset, total = DatasetReader.open(SAMPLES / name), 0
    for path in sorted((SAMPLES / name).rglob("*.mp4")):
        with VideoReader(path) as reader:
            total += reader.num_frames
            assert reader.fps == dataset.fps
            np.testing.assert_allclose(np.diff(reader.timestamps), 1 / dataset.fps, atol=1e-9)
            with av.open(str(path)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    expected = frame.to_ndarray(format="rgb24")
                    np.testing.assert_array_equal(reader.read([number])[0], expected)
            assert number + 1 == reader.num_frames
    assert total == dataset.num_frames
