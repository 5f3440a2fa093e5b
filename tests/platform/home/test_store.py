"""What can be wrong with an address, in one line each."""

import errno
from pathlib import Path

import fsspec
import pyarrow.fs as arrow
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from leray.errors import CheckpointError, ConfigError
from leray.platform.home.fetch import fetch_policy
from leray.platform.home.home import open_home
from leray.platform.home.store import Store, remote_url
from tests.platform.home.conftest import Trainer
from tests.platform.home.shelf import Shelf


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/runs/1", "s3://bucket/runs/1"),
        (Path("s3://bucket/runs/1"), "s3://bucket/runs/1"),
        (Path("memory:///runs"), "memory://runs"),
        ("outputs/train", None),
        (Path("outputs/train"), None),
        ("/runs/a:b", None),
        ("user/name", None),
        ("file:///runs", None),
        (Path("file:///runs"), None),
        ("s3:", None),
    ],
)
def test_which_places_are_elsewhere(place, url):
    assert remote_url(place) == url


def test_unknown_schemes_and_missing_packages(monkeypatch):
    with pytest.raises(ConfigError, match=r"nosuch:// is no kind of store; allowed are a folder, "):
        open_home("nosuch://bucket/run")

    def missing(*_: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"s3:// needs a package .* missing: pip install s3fs$"):
        open_home("s3://bucket/run")
    with pytest.raises(ConfigError, match=r"install its package \(Install it\)$"):
        fetch_policy("box://folder/run")


class NoCredentialsError(Exception):
    """As botocore calls it."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("Access Denied"), "not permitted .*: give its credentials, of someone"),
        (NoCredentialsError("Unable to locate credentials"), "not permitted .*: give"),
        (OSError(errno.ENOSPC, "No space left on device"), "the store is full .*: free space"),
        (OSError("QuotaExceeded: no more"), "the store is full"),
        (FileNotFoundError("The specified bucket does not exist"), "is not there .*: make it"),
        (ConnectionError("refused"), "cannot be reached .*refused.*: check the address"),
        (NotImplementedError(), "shelf:// cannot be written to"),
    ],
)
def test_what_a_store_refuses_is_told_in_one_line(shelf, monkeypatch, error, told):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Shelf, "pipe_file", refuse)
    with pytest.raises(ConfigError, match=f"--output_dir={shelf}: .*{told}") as caught:
        open_home(shelf)
    assert "\n" not in str(caught.value)
    if "bucket" not in str(error):
        monkeypatch.setattr(Shelf, "cat_file", refuse)
        missing = isinstance(error, NotImplementedError)
        with pytest.raises(CheckpointError, match="shelf" if missing else told):
            fetch_policy(shelf)


def test_a_bucket_is_never_made(shelf, monkeypatch):
    from leray.platform.home import store

    monkeypatch.setattr(store, "BUCKETS", {"shelf"})
    with pytest.raises(ConfigError, match=r"the bucket tmp is not there .*: make it"):
        open_home(shelf)


@pytest.mark.parametrize("kind", ["fsspec folder", "arrow"])
def test_a_filesystem_may_be_given_as_an_object(tmp_path, kind):
    (tmp_path / "place").mkdir()
    filesystem = {
        "fsspec folder": DirFileSystem(str(tmp_path / "place"), fsspec.filesystem("file")),
        "arrow": arrow.SubTreeFileSystem(str(tmp_path / "place"), arrow.LocalFileSystem()),
    }[kind]
    with open_home("runs/1", filesystem=filesystem) as home:
        trainer = Trainer(home.local)
        trainer.collect()
        trainer.save()
        assert home.finish() == []
    assert (tmp_path / "place/runs/1/checkpoints/000005/pretrained_model/config.json").is_file()


def test_a_policy_that_is_no_run_is_fetched_once(url):
    store = Store(url)
    store.write("config.json", b"{}")
    store.write("model.safetensors", b"weights")
    store.write("notes.txt", b"not needed")
    folder = fetch_policy(url)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert fetch_policy(url) == folder
    store.write("model.safetensors", b"newer weights")
    assert (fetch_policy(url) / "model.safetensors").read_bytes() == b"newer weights"
    inside = Store(f"{url}/checkpoint/pretrained_model")
    inside.write("config.json", b"{}")
    assert (fetch_policy(f"{url}/checkpoint") / "config.json").is_file()


def test_addresses_without_a_policy(url):
    with pytest.raises(CheckpointError, match=r"holds no policy, neither run.json nor config.json"):
        fetch_policy(url)
    with open_home(url) as home:
        trainer = Trainer(home.local)
        with pytest.raises(CheckpointError, match="no complete checkpoint last yet"):
            fetch_policy(url)
        trainer.save()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint 000007; there are 000000$"):
        fetch_policy(f"{url}/checkpoints/000007/pretrained_model")
