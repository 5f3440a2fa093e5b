"""Conversions that are killed, meet a full disk, run twice at once, or replace their source."""

import hashlib
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.convert import convert
from leray.data.tools.rewriting import work_folder
from leray.data.tools.rewriting.target import RewriteOptions
from leray.data.video.options import VideoOptions
from leray.errors import DatasetError

_SPEC = importlib.util.spec_from_file_location("v21", Path(__file__).with_name("v21.py"))
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)

STEPS = 3 * (1 + 2 * 2)
"""Episodes, each with its rows and two videos that are found and written."""


class Killed(BaseException):
    """Stands for the end of the process: nothing after it happens."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return v21.make(tmp_path_factory.mktemp("source") / "v21")


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "new"
    convert(source, folder)
    return digest(folder)


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def kill_after(steps: int):
    def report(done: int, total: int) -> None:
        assert done <= total == STEPS
        if done >= steps:
            raise Killed

    return report


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_a_conversion_killed_after_any_step_can_be_repeated(source, undisturbed, tmp_path, steps):
    output = tmp_path / "new"
    with pytest.raises(Killed):
        convert(source, output, on_progress=kill_after(steps))
    assert not output.exists()
    convert(source, output)
    assert digest(output) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_videos_that_are_ready_are_not_copied_again(source, tmp_path):
    output = tmp_path / "new"
    with pytest.raises(Killed):
        convert(source, output, on_progress=kill_after(STEPS - 3))  # the first camera is done
    (ready,) = (tmp_path / ".new.partial").rglob(f"{v21.FRONT}/chunk-000/file-000.mp4")
    number = ready.stat().st_ino
    convert(source, output)
    (video,) = output.rglob(f"{v21.FRONT}/chunk-000/file-000.mp4")
    assert video.stat().st_ino == number


def test_another_conversion_begins_anew(source, undisturbed, tmp_path):
    output = tmp_path / "new"
    with pytest.raises(Killed):
        convert(
            source,
            output,
            RewriteOptions(video_files_size_in_mb=1),
            on_progress=kill_after(STEPS),
        )
    (ready,) = (tmp_path / ".new.partial").rglob(f"{v21.FRONT}/chunk-000/file-000.mp4")
    ready.write_bytes(b"not this one")
    convert(source, output)
    assert digest(output) == undisturbed


def test_a_changed_source_is_read_anew(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.FRONT])
    output = tmp_path / "new"
    steps = 3 * (1 + 2)
    with pytest.raises(Killed):
        convert(root, output, on_progress=lambda done, total: _raise_at(done == steps))
    path = root / f"videos/chunk-000/{v21.FRONT}/episode_000000.mp4"
    v21.film(path, [v21.picture(0, k, 2) for k in range(14)])
    convert(root, output)
    old, new = DatasetReader.open(root), DatasetReader.open(output)
    assert (old.read_frames(v21.FRONT, [0, 13]) == new.read_frames(v21.FRONT, [0, 13])).all()


def _raise_at(is_time: bool) -> None:
    if is_time:
        raise Killed


def test_encoded_videos_and_computed_statistics_are_not_made_again(tmp_path, monkeypatch):
    root = v21.make(tmp_path / "old", version="v2.0", cameras=[v21.FRONT])
    output, options = tmp_path / "new", RewriteOptions(encode=VideoOptions(vcodec="h264"))
    with pytest.raises(Killed):  # 3 found, 3 encoded, 2 of 3 rows
        convert(root, output, options, on_progress=lambda done, total: _raise_at(done == 8))
    scratch = tmp_path / ".new.partial/.scratch"
    encoded = {path: path.stat().st_ino for path in scratch.rglob("*.mp4")}
    lines = (scratch / "image_stats.jsonl").read_text().split()
    assert (len(encoded), len(lines) > 0) == (3, True)
    with (scratch / "image_stats.jsonl").open("a") as file:
        file.write('\n[0, "observation.im')  # a line that the kill cut short
    decoded = []
    original = DatasetReader.read_frames
    monkeypatch.setattr(
        DatasetReader,
        "read_frames",
        lambda self, camera, frames: (decoded.extend(frames), original(self, camera, frames))[1],
    )
    convert(root, output, options)
    assert min(decoded) == 23  # of the last episode only
    assert not list(output.rglob(".*"))


def test_killed_by_the_system(source, undisturbed, tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from leray.data.tools.convert import convert\n"
        "kill = lambda done, total: done >= 10 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=kill)\n"
    )
    output = tmp_path / "new"
    done = subprocess.run([sys.executable, "-c", script, source, output], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    convert(source, output)
    assert digest(output) == undisturbed


@pytest.fixture
def full_disk():
    """Let no file of this process grow beyond a few kilobytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_one_clear_error(source, undisturbed, tmp_path, full_disk):
    output = tmp_path / "new"
    with pytest.raises(DatasetError, match=r"the disk is full.*give the same command again"):
        convert(source, output)
    assert not output.exists()
    full_disk()
    convert(source, output)
    assert digest(output) == undisturbed


def test_an_output_that_exists_is_refused(source, tmp_path):
    (tmp_path / "new").mkdir()
    convert(source, tmp_path / "new")  # an empty folder will do
    before = digest(tmp_path / "new")
    with pytest.raises(DatasetError, match=r"new exists; give the name of a new folder"):
        convert(source, tmp_path / "new")
    assert digest(tmp_path / "new") == before


def test_two_processes_do_not_write_one_dataset(source, tmp_path):
    output = tmp_path / "new"
    with (
        work_folder.work_folder(output, "something"),
        pytest.raises(DatasetError, match=r"another process is making .*new"),
    ):
        convert(source, output)
    assert output.is_dir()


def test_in_place_the_old_dataset_is_kept(source, undisturbed, tmp_path):
    root = tmp_path / "data"
    v21.make(root)
    before = digest(root)
    made = convert(root)
    assert made.folder == root
    assert DatasetReader.open(root).version == "v3.0"
    assert digest(tmp_path / "data_old") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data_old"]
    with pytest.raises(DatasetError, match=r"data_old exists"):
        convert(root, repack=True)


@pytest.mark.parametrize("renames", [0, 1])
def test_an_exchange_that_was_killed_is_finished(tmp_path, monkeypatch, renames):
    root = v21.make(tmp_path / "data", cameras=[v21.FRONT])
    before = digest(root)
    left = [renames]
    rename = Path.rename

    def counted(self, target):
        if self.name in ("data", ".data.partial"):
            if not left[0]:
                raise Killed
            left[0] -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises(Killed):
        convert(root)
    assert root.exists() == (renames == 0)
    monkeypatch.undo()
    made = convert(root)
    assert (made.folder, made.num_episodes) == (root, 3)
    assert digest(tmp_path / "data_old") == before
    assert json.loads((root / "meta/info.json").read_text())["codebase_version"] == "v3.0"
    assert sorted(os.listdir(tmp_path)) == ["data", "data_old"]
