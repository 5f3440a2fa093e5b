"""Files that are no sound colour video: one line says what is wrong, and nothing hangs."""

import contextlib
import io

import av
import numpy as np
import pytest

from leray.data.video.reader import VideoReader
from leray.errors import DatasetError


def refused(source, message):
    with pytest.raises(DatasetError, match=message) as raised, VideoReader(source) as reader:
        reader.read(range(reader.num_frames))
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(str(source))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty: copy or record the file again$"),
        (b"hello " * 100, r"is not an mp4 video$"),
        (b"ffconcat version 1.0\nfile other.mp4\n", r"is not an mp4 video$"),
        (b"\0\0\0\x18ftypisom", r"is cut off or damaged, its table of frames is missing"),
    ],
)
def test_not_a_video(tmp_path, content, message):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    refused(path, message)


def test_not_there(tmp_path):
    refused(tmp_path / "none.mp4", r"none\.mp4 cannot be opened: No such file or directory$")
    refused(str(tmp_path), r"cannot be opened: Is a directory$")


def test_another_container(make):
    refused(make(suffix=".mkv"), r"is not an mp4 video$")


def test_no_video_in_it(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(path, r"holds no video that can be decoded$")


@pytest.mark.parametrize("pix_fmt", ["gray", "gray12le"])
def test_no_colour(make, pix_fmt):
    path = make("libx265", pix_fmt, {"x265-params": "log-level=none"}, num_frames=5)
    refused(path, rf"of format {pix_fmt}; only colour can be read$")


def test_absurd_size(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 20000, 16, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(20000, 16, "yuvj420p")))
        container.mux(stream.encode())
    refused(path, r"claims pictures of 20000 x 16 pixels; the most is 16384 on a side$")


def test_a_title_that_is_no_text_does_no_harm(tmp_path, video):
    source = video("h264 g=2")
    path = tmp_path / "titled.mp4"
    with av.open(str(source.path)) as container, av.open(str(path), "w") as target:
        target.metadata["title"] = "monday"
        stream = target.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"monday", b"\xff\xfe\xff\xfe\xc0y"))
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(reader.read([9])[0], source.frames[9])


def test_frames_that_do_not_exist(video):
    with VideoReader(video("h264 g=2").path) as reader:
        for number in (-1, 60, 2**40):
            with pytest.raises(DatasetError, match=f"has no frame {number}; there are: 0 to 59$"):
                reader.read([3, number, 5])
        for frames in ([1.5], [[1]], ["a"], 3):
            with pytest.raises(TypeError, match=r"^frames are a list of numbers"):
                reader.read(frames)
    with pytest.raises(ValueError, match=r"^threads must be at least 1, not 0$"):
        VideoReader(video("h264 g=2").path, threads=0)


def test_recording_never_finished(video):
    """The table of frames comes last, unless asked otherwise."""
    content = video("av1 g=2").path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(DatasetError, match=r"^camera is cut off or damaged, its table"):
            VideoReader(io.BytesIO(content[: int(share * len(content))]), name="camera")


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
def test_cut_off_after_the_table(make, plain_loop, packets_of, encoder):
    quiet = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
    path = make(encoder, options=quiet, container_options={"movflags": "faststart"})
    expected, packets = plain_loop(path).frames, packets_of(path)
    lost = 35  # in decoding order
    path.write_bytes(path.read_bytes()[: packets[lost].position + packets[lost].size // 2])
    there = sorted(packet.frame for packet in packets[:lost])
    missing = sorted(packet.frame for packet in packets[lost:])
    with VideoReader(path) as reader:
        assert reader.num_frames == 60
        np.testing.assert_array_equal(reader.read(there), expected[there])
        for number in there[-3:]:
            np.testing.assert_array_equal(reader.read([number])[0], expected[number])
        for number in (missing[0], missing[-1]):
            with pytest.raises(DatasetError, match=rf"made\.mp4 is cut off before frame {number}:"):
                reader.read([0, number])
        np.testing.assert_array_equal(reader.read(there[-5:]), expected[there[-5:]])


@pytest.mark.parametrize("encoder", ["libx264", "libsvtav1"])
def test_cut_off_before_the_first_frame(make, packets_of, encoder):
    path = make(encoder, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: packets_of(path)[0].position])
    refused(path, "(holds no picture that can be decoded|is cut off before frame 0): copy or")


def test_cut_off_in_fragments(make, plain_loop, packets_of):
    """Each fragment lists its own frames, so nobody knows of those that are lost."""
    path = make(options={"g": "12"}, container_options={"movflags": "frag_keyframe+empty_moov"})
    expected, packets = plain_loop(path).frames, packets_of(path)
    path.write_bytes(path.read_bytes()[: packets[30].position + packets[30].size // 2])
    with VideoReader(path) as reader:
        assert reader.num_frames == 30
        there = sorted(packet.frame for packet in packets[:30])
        np.testing.assert_array_equal(reader.read(range(30)), expected[there])


@pytest.mark.parametrize(
    ("kind", "intact"),
    [("h264 g=10", 0), ("h264 g=10", 0.5), ("hevc open", 0), ("av1 g=10 10 bit", 0)],
)
def test_damaged_pictures(video, packets_of, tmp_path, kind, intact):
    expected, packets = video(kind), packets_of(video(kind).path)
    content = bytearray(expected.path.read_bytes())
    for packet in packets[20:23]:
        begin, end = packet.position + int(intact * packet.size), packet.position + packet.size
        content[begin:end] = b"\xff" * (end - begin)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    with VideoReader(path) as reader:
        for number in (*range(10), *range(45, 60)):
            np.testing.assert_array_equal(reader.read([number])[0], expected.frames[number])
        for packet in packets[20:23]:
            with pytest.raises(DatasetError, match=rf"mp4: frame {packet.frame} cannot be decoded"):
                reader.read([packet.frame])
        np.testing.assert_array_equal(reader.read(range(50, 60)), expected.frames[50:])


def test_random_damage_ends_in_an_error_or_in_frames(video):
    rng = np.random.default_rng(8)
    for kind in ("h264 open", "hevc open", "av1 g=250"):
        content = np.frombuffer(video(kind).path.read_bytes(), np.uint8)
        for _ in range(25):
            damaged = content.copy()
            places = rng.integers(0, len(content), rng.integers(1, 12))
            damaged[places] = rng.integers(0, 256, len(places))
            with contextlib.suppress(DatasetError):  # anything else is a failure, so is a hang
                reader = VideoReader(io.BytesIO(damaged.tobytes()))
                reader.read(range(min(reader.num_frames, 100)))
