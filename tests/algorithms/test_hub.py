"""Policies from the Hub: what is fetched, what is kept, what is refused."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from leray.algorithms.hub import download, pretrained_folder
from leray.errors import CheckpointError
from tests.data.hub.standin import READER, Hub, RefusalError

REPO = "lab/policy"
PRE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
READ = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "policy_preprocessor.json": b"{}",
    PRE: b"statistics",
    "policy_postprocessor.json": b"{}",
}
UNREAD = {"README.md": b"card", "videos/eval.mp4": b"film", "optimizer_state.safetensors": b"big"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and nobody logged in."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(cache, monkeypatch):
    """An empty stand-in Hub that `huggingface_hub` takes for the real one."""
    disable_progress_bars()
    with Hub().serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def refused(name, *words, revision=None):
    """Ask for what must be refused in one line that holds the words."""
    with pytest.raises(CheckpointError) as caught:
        pretrained_folder(name, revision)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_read_arrives_once_and_nothing_else(hub, cache):
    hub.add(REPO, READ | UNREAD)
    folder = pretrained_folder(REPO)
    assert folder.is_relative_to(cache)
    assert contents(folder) == READ
    hub.requests.clear()
    assert pretrained_folder(REPO) == folder
    assert hub.fetched() == []


def test_a_revision_is_another_folder(hub):
    repo = hub.add(REPO, READ, tag="v1")
    newer = READ | {"config.json": b'{"newer": true}'}
    hub.add(REPO, newer)
    assert contents(pretrained_folder(REPO, "v1")) == READ
    assert contents(pretrained_folder(REPO)) == newer
    assert contents(pretrained_folder(REPO, repo.tags["v1"])) == READ
    refused(REPO, REPO, "no such revision", revision="v9")


def test_a_folder_that_is_here_is_used_without_a_question(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / REPO).mkdir(parents=True)
    assert pretrained_folder(REPO) == Path(REPO)
    assert pretrained_folder(tmp_path / REPO) == tmp_path / REPO
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained_folder(f"~/{REPO}") == tmp_path / REPO
    assert hub.requests == []


@pytest.mark.parametrize(
    "name",
    ["nowhere", "a/b/c", "/abs/folder", "../up", "./here", "a/", "config.json", ".", "a b/c"],
)
def test_what_can_only_be_a_folder_is_not_asked_for(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == ".":
        assert pretrained_folder(name) == Path()
    else:
        refused(name, f"{name}: no such folder", "user/name")
    (tmp_path / "lab").mkdir()
    (tmp_path / REPO).write_text("a file")
    refused(REPO, "no such folder")
    assert hub.requests == []


def test_a_repo_that_is_not_there_may_be_a_folder_misspelt(hub):
    refused("outputs/mine", "no model outputs/mine on the Hub", "no folder outputs/mine either")


def test_private_and_gated_repos_need_a_token(hub, monkeypatch):
    repo = hub.add(REPO, READ)
    repo.private = True
    refused(REPO, "no model lab/policy", "hf auth login")
    repo.private, repo.gated = False, True
    refused(REPO, "is gated", f"/{REPO},")
    repo.private = True
    monkeypatch.setenv("HF_TOKEN", READER)
    assert contents(pretrained_folder(REPO)) == READ


def test_offline_what_was_fetched_is_used(hub, monkeypatch):
    hub.add(REPO, READ)
    folder = pretrained_folder(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert pretrained_folder(REPO) == folder
    assert hub.requests == []
    refused("lab/other", "offline mode is on", "HF_HUB_OFFLINE")


def test_a_hub_that_does_not_answer_is_told(hub, monkeypatch):
    hub.add(REPO, READ)
    folder = pretrained_folder(REPO)
    hub.refuse = lambda request: RefusalError(503)
    assert pretrained_folder(REPO) == folder
    refused("lab/other", "503", "try again later")
    hub.refuse = lambda request: None
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert pretrained_folder(REPO) == folder
    refused("lab/other", "does not answer")


def test_an_interrupted_download_is_completed_by_the_next(hub):
    hub.add(REPO, READ)
    hub.refuse = lambda r: RefusalError(403) if r.path.endswith("/model.safetensors") else None
    refused(REPO, "403")
    hub.refuse = lambda request: None
    assert contents(pretrained_folder(REPO)) == READ


def test_a_repo_without_a_policy_is_refused(hub):
    hub.add(REPO, UNREAD)
    refused(REPO, f"{REPO} on the Hub is no policy", "config.json")


def test_single_files_can_be_had(hub):
    hub.add(REPO, READ)
    assert contents(download(REPO, ["model.safetensors"])).keys() == {"model.safetensors"}
