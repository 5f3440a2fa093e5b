"""Names, patterns and errors: the parts that need no Hub."""

import errno
import random
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from huggingface_hub import constants

from leray.data.hub.errors import check_repo_id, hub_errors_told
from leray.data.hub.local import Cache, Record, lerobot_home
from leray.data.hub.remote import patterns_of
from leray.errors import DatasetError


def test_patterns_match_exactly_what_is_wanted():
    random.seed(3)
    for _ in range(200):
        parts = ["a", "b[1]", "c*", "data"]
        files = {
            "/".join([*random.choices(parts, k=random.randint(1, 4)), f"{n}.x"]) for n in range(30)
        }
        wanted = random.sample(sorted(files), random.randint(0, len(files)))
        if random.random() < 0.5:
            wanted = [name for name in files if name.startswith(("data/", "a/"))]
        patterns = patterns_of(wanted, files)
        matched = {name for name in files if any(fnmatchcase(name, p) for p in patterns)}
        assert matched == set(wanted)
        assert len(patterns) <= len(wanted)


def test_whole_folders_are_one_pattern():
    files = [f"videos/cam/chunk-{n // 10:03d}/{n:03d}.mp4" for n in range(40)] + ["meta/info.json"]
    assert patterns_of(files, files) == ["*"]
    assert patterns_of(files[:-1], files) == ["videos/*"]
    assert patterns_of(files[:11], files) == ["videos/cam/chunk-000/*", files[10]]
    assert patterns_of([], files) == []


@pytest.mark.parametrize("repo_id", ["pusht", "lerobot/pusht", "a/b-c_d.e", "1/2", "_x/y_"])
def test_good_names(repo_id):
    check_repo_id(repo_id)


def test_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("LEROBOT_HOME", raising=False)
    monkeypatch.delenv("HF_LEROBOT_HOME", raising=False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert lerobot_home() == tmp_path / "lerobot"
    monkeypatch.setenv("HF_LEROBOT_HOME", "~/sets")
    assert lerobot_home() == Path.home() / "sets"


def test_a_damaged_note_of_the_cache_is_no_copy(home):
    cache = Cache("lab/demo")
    commit = "a" * 40
    cache.snapshot(commit).mkdir(parents=True)
    assert cache.find("v3.0") is None
    cache.remember(Record("lab/demo", "v3.0", commit))
    assert cache.find("v3.0") == cache.find(commit) == cache.snapshot(commit)
    (home / "hub/datasets--lab--demo/refs/v3.0").write_bytes(b"../../\xff")
    assert cache.find("v3.0") is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left at here"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "no space left at here"),
        (PermissionError(errno.EACCES, "denied"), "here is not writable"),
        (OSError("Consistency check failed:\nfile is short"), "failed: file is short); try again"),
        (RuntimeError("storage\nbroke"), "the transfer failed (storage broke); try again"),
    ],
)
def test_local_trouble_is_told_in_one_line(error, words):
    with pytest.raises(DatasetError) as caught, hub_errors_told("lab/demo", folder=Path("here")):
        raise error
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defects_are_not_hidden():
    with pytest.raises(TypeError), hub_errors_told("lab/demo"):
        raise TypeError("a defect")
