"""Datasets brought from the Hub: which version, which files, what is kept, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from huggingface_hub import constants

from leray.data.hub.download import resolve
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

CAMERA = "observation.images.front"
REPO = "lab/demo"


def refused(call, *words: str) -> str:
    """Run a call that must fail with one line that holds the words."""
    with pytest.raises(DatasetError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


@pytest.mark.parametrize("named", [False, True])
def test_a_dataset_arrives_whole_and_once(hub, home, v30, tmp_path, contents, named):
    repo = hub.add(REPO, v30, tag="v3.0")
    root = tmp_path / "pulled" if named else None
    folder = resolve(REPO, root=root)
    assert folder == root or folder.is_relative_to(home / "hub")
    assert contents(folder) == repo.head()
    assert sorted(hub.fetched()) == sorted(repo.head())
    hub.requests.clear()
    assert resolve(REPO, root=root) == folder
    assert hub.fetched() == []
    assert named == (hub.requests == [])  # a pulled folder needs no question


def test_a_dataset_that_is_here_is_used_as_it_is(hub, home, v30, place, dataset):
    place(v30, f"home/{REPO}")
    assert resolve(REPO) == home / REPO
    assert resolve("any/name", root=dataset) == dataset
    assert hub.requests == []


def test_sync_or_revision_ask_the_hub_and_leave_the_folder_alone(
    hub, home, v30, v21, place, contents
):
    place(v21, f"home/{REPO}")
    hub.add(REPO, v30, tag="v3.0")
    for asked in ({"force_cache_sync": True}, {"revision": "v3.0"}):
        folder = resolve(REPO, **asked)
        assert folder.is_relative_to(home / "hub")
        assert contents(folder) == v30
    assert contents(home / REPO) == v21


@pytest.mark.parametrize(
    ("revisions", "chosen"),
    [
        (["v2.0", "v2.1", "v3.0", "v4.0"], "v3.0"),
        (["v2.0", "v2.1", "v4.0", "v3.1"], "v2.1"),
        (["v2.0", "v1.6", "2024.1", "old"], "v2.0"),
        (["draft", "v3"], "main"),
        ([], "main"),
    ],
)
@pytest.mark.parametrize("kind", ["tags", "branches"])
def test_the_newest_readable_version_is_chosen(hub, v30, caplog, revisions, chosen, kind):
    repo = hub.add(REPO, {**v30, "name.txt": b"main"})
    for name in revisions:
        commit = repo.commit("work", {**v30, "name.txt": name.encode()})
        getattr(repo, kind)[name] = commit
    assert (resolve(REPO) / "name.txt").read_text() == chosen
    assert ("no version tag" in caplog.text) == (chosen == "main")


@pytest.mark.parametrize("version", ["v3.1", "v4.0", "v1.6"])
def test_versions_that_cannot_be_read_are_refused(hub, v30, version):
    hub.add(REPO, v30, tag=version)
    refused(lambda: resolve(REPO), version, "readable are v2.0, v2.1, v3.0")
    assert hub.fetched() == []


def test_an_unreadable_dataset_is_refused_before_its_data_comes(hub, v30):
    info = json.loads(v30["meta/info.json"]) | {"codebase_version": "v4.0"}
    hub.add(REPO, {**v30, "meta/info.json": json.dumps(info).encode()})
    refused(lambda: resolve(REPO), "codebase_version 'v4.0'")
    assert not [name for name in hub.fetched() if name.startswith(("data/", "videos/"))]


def test_a_revision_is_honoured(hub, v30, contents):
    old = hub.add(REPO, v30, tag="v3.0").branches["main"]
    repo = hub.add(REPO, {**v30, "meta/stats.json": b'{"new": {}}'}, tag="tried")
    assert contents(resolve(REPO)) == v30
    assert contents(resolve(REPO, revision="tried")) == repo.head()
    assert contents(resolve(REPO, revision="main")) == repo.head()
    assert contents(resolve(REPO, revision=old)) == v30
    refused(lambda: resolve(REPO, revision="nope"), "no revision 'nope'", "v3.0, tried, main")
    for wrong in ("", "../main", "/main"):
        refused(lambda wrong=wrong: resolve(REPO, revision=wrong), "is no branch, tag or commit")


def test_a_moved_tag_brings_only_what_changed(hub, v30, contents):
    hub.add(REPO, v30, tag="v3.0")
    before = resolve(REPO)
    hub.requests.clear()
    repo = hub.add(REPO, {**v30, "meta/stats.json": b'{"new": {}}'}, tag="v3.0")
    after = resolve(REPO)
    assert (contents(before), contents(after)) == (v30, repo.head())
    assert hub.fetched() == ["meta/stats.json"]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("version", "episodes", "data", "videos"),
    [
        ("v30", [3], ["file-001"], ["file-001"]),
        ("v30", [2], ["file-001"], ["file-000"]),
        ("v30", [0, 3], ["file-000", "file-001"], ["file-000", "file-001"]),
        ("v21", [1], ["episode_000001"], ["episode_000001"]),
        ("v21", [3], ["episode_000003"], ["episode_000003"]),
        ("v21", [3, 0], ["episode_000000", "episode_000003"], ["episode_000000", "episode_000003"]),
    ],
)
def test_episodes_bring_only_their_files(
    hub, request, tmp_path, named, version, episodes, data, videos
):
    files = request.getfixturevalue(version)
    hub.add(REPO, files, tag="v2.1" if version == "v21" else "v3.0")
    root = tmp_path / "pulled" if named else None
    folder = resolve(REPO, root=root, episodes=episodes)
    bulk = [name for name in hub.fetched() if name.startswith(("data/", "videos/"))]
    stems = [name.rpartition("/")[2].partition(".")[0] for name in sorted(bulk)]
    assert stems == [*data, *videos]
    reader = DatasetReader.open(folder, episodes=episodes)
    assert reader.read(["action"])["action"].tolist() == [e for e in sorted(episodes) for _ in "ab"]
    assert CAMERA in reader.features
    hub.requests.clear()
    assert resolve(REPO, root=root) == folder  # the rest comes when it is asked for
    assert set(hub.fetched()) == {n for n in files if n.startswith(("data/", "videos/"))} - set(
        bulk
    )
    refused(lambda: resolve(REPO, root=root, episodes=[9]), "no episode 9; there are: 0 to 3")


@pytest.mark.parametrize("named", [False, True])
def test_many_single_files(hub, standin, v21, monkeypatch, tmp_path, contents, named):
    monkeypatch.setattr("leray.data.hub.remote.MOST_PATTERNS", 0)
    hub.add("lab/private", v21, tag="v2.1").private = True
    root = tmp_path / "pulled" if named else None
    asked = {"root": root, "episodes": [0, 3], "token": standin.READER}
    hub.refuse = lambda r: standin.RefusalError(403) if "000003.mp4" in r.path else None
    refused(lambda: resolve("lab/private", **asked), "403")
    hub.refuse = lambda r: None
    folder = resolve("lab/private", **asked)
    wanted = {name: v21[name] for name in v21 if "00001." not in name and "00002." not in name}
    assert contents(folder) == wanted
    assert sorted(hub.fetched()) == sorted(wanted)  # none of them twice


def test_videos_can_wait(hub, v30, contents):
    hub.add(REPO, v30, tag="v3.0")
    folder = resolve(REPO, download_videos=False)
    videos = {name for name in v30 if name.startswith("videos/")}
    assert set(contents(folder)) == set(v30) - videos
    hub.requests.clear()
    assert contents(resolve(REPO)) == v30
    assert set(hub.fetched()) == videos


def test_a_cut_connection_goes_on_where_it_broke(hub, v30, contents, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    video = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    hub.add(REPO, v30, tag="v3.0")
    hub.cut[video] = 70_000
    assert contents(resolve(REPO)) == v30
    ranges = [request.range for request in hub.gets() if request.path.endswith(video)]
    assert ranges == [None, "bytes=70000-"]


@pytest.mark.parametrize("named", [False, True])
def test_a_failed_download_is_completed_by_the_next(hub, standin, v30, tmp_path, contents, named):
    hub.add(REPO, v30, tag="v3.0")
    root = tmp_path / "pulled" if named else None
    hub.refuse = lambda r: (
        standin.RefusalError(403) if r.path.endswith("file-001.parquet") else None
    )
    refused(lambda: resolve(REPO, root=root), REPO, "403", "token")
    hub.refuse = lambda r: None
    there = {name for name in hub.fetched() if name.startswith("meta/")}
    assert "meta/info.json" in there
    hub.requests.clear()
    folder = resolve(REPO, root=root)
    assert contents(folder) == v30
    assert not there & set(hub.fetched())


def test_half_of_the_metadata_is_no_dataset(hub, standin, v30, tmp_path, monkeypatch):
    hub.add(REPO, v30, tag="v3.0")
    hub.refuse = lambda r: standin.RefusalError(403) if "/meta/episodes/" in r.path else None
    root = tmp_path / "pulled"
    refused(lambda: resolve(REPO, root=root), "403")
    assert not (root / "meta/info.json").exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(lambda: resolve(REPO, root=root), "not on this machine")


def test_a_killed_download_is_completed_by_the_next(hub, v30, tmp_path, contents):
    video = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    hub.add(REPO, v30, tag="v3.0")
    hub.stall.add(video)
    root = tmp_path / "pulled"
    code = f"from leray.data.hub.download import resolve; resolve({REPO!r}, root={str(root)!r})"
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **settings}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        assert hub.stalled.wait(60)
        process.send_signal(signal.SIGKILL)
    assert not (root / video).exists()
    hub.stall.clear()
    hub.requests.clear()
    assert resolve(REPO, root=root) == root
    assert contents(root) == v30
    assert video in hub.fetched()
    assert "meta/info.json" not in hub.fetched()


@pytest.mark.parametrize(
    "repo_id", ["", "a/b/c", "lab/de mo", "../up", "/etc", "lab/..", "a--b/c", "lab/.x", "é/b"]
)
def test_wrong_names_are_refused(hub, repo_id):
    refused(lambda: resolve(repo_id), "is no repo id", "user/name")
    assert hub.requests == []


def test_datasets_that_may_not_be_seen(hub, standin, v30, contents):
    hub.add("lab/private", v30, tag="v3.0").private = True
    hub.add("lab/gated", v30, tag="v3.0").gated = True
    refused(lambda: resolve("lab/absent"), "no dataset lab/absent", "hf auth login", "HF_TOKEN")
    refused(lambda: resolve("lab/private"), "no dataset lab/private", "hf auth login")
    refused(lambda: resolve("lab/gated"), "gated", "ask for access", "/datasets/lab/gated")
    text = refused(lambda: resolve("lab/private", token="hf_wrong"), "does not accept the token")
    assert "hf_wrong" not in text
    for name in ("lab/private", "lab/gated"):
        assert contents(resolve(name, token=standin.READER)) == v30


def test_a_repo_that_is_no_lerobot_dataset(hub):
    hub.add(REPO, {"train.csv": b"1,2"})
    refused(lambda: resolve(REPO), "no LeRobot dataset", "meta/info.json")
    assert hub.fetched() == []


@pytest.mark.parametrize("trouble", ["offline", "gone", 500, 503, 429])
def test_without_the_hub_the_copy_is_used(
    hub, standin, v30, monkeypatch, caplog, tmp_path, trouble
):
    hub.add(REPO, v30, tag="v3.0")
    folder = resolve(REPO, episodes=[3])
    root = resolve(REPO, root=tmp_path / "pulled", revision="v3.0")
    if trouble == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif trouble == "gone":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        hub.refuse = lambda r: standin.RefusalError(trouble)
    assert resolve(REPO, episodes=[3]) == folder
    assert "the copy at" in caplog.text
    assert resolve(REPO, episodes=[3], revision="v3.0") == folder
    assert resolve(REPO, root=root, revision="v3.0") == root
    reason = {"offline": "HF_HUB_OFFLINE", "gone": "does not answer"}.get(trouble, str(trouble))
    refused(lambda: resolve(REPO), reason, "not on this machine")  # other episodes are lacking
    refused(lambda: resolve(REPO, revision="v2.1"), reason, "not on this machine")
    refused(lambda: resolve("lab/other"), reason, "not on this machine")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "data/../../evil", "/etc/evil", "a\\..\\evil", "data//x"]
)
def test_names_that_lead_out_of_the_folder(hub, v30, tmp_path, name):
    hub.add(REPO, {**v30, name: b"evil"}, tag="v3.0")
    refused(lambda: resolve(REPO, root=tmp_path / "pulled"), repr(name), "do not trust")
    assert hub.fetched() == []
    assert not (tmp_path / "pulled").exists()


def test_hidden_files_are_left_on_the_hub(hub, v30, contents):
    hub.add(
        REPO,
        {**v30, ".gitattributes": b"x", ".cache/leray/pulled.json": b"{}", "data/.x": b""},
        tag="v3.0",
    )
    assert contents(resolve(REPO)) == v30


def test_folders_with_something_else_are_refused_and_kept(hub, v30, dataset, tmp_path, contents):
    hub.add(REPO, v30, tag="v3.0")
    before = contents(dataset)
    refused(lambda: resolve(REPO, root=dataset, revision="v3.0"), "not pulled from the Hub")
    assert contents(dataset) == before
    root = resolve(REPO, root=tmp_path / "pulled")
    hub.add("lab/other", v30, tag="v3.0")
    refused(lambda: resolve("lab/other", root=root), "is of lab/demo, not lab/other")
    hub.add(REPO, {**v30, "meta/stats.json": b'{"new": {}}'}, tag="v3.0")
    assert resolve(REPO, root=root) == root  # belongs to its commit for good
    for asked in ({"force_cache_sync": True}, {"revision": "v3.0"}):
        refused(lambda asked=asked: resolve(REPO, root=root, **asked), "give another folder")
    assert contents(root) == v30


def test_what_was_changed_here_is_never_overwritten(hub, v30, tmp_path):
    hub.add(REPO, v30, tag="v3.0")
    root = resolve(REPO, root=tmp_path / "pulled")
    (root / "data/chunk-000/file-000.parquet").unlink()
    (root / "meta/stats.json").write_text('{"mine": {}}')
    later = time.time() + 60
    os.utime(root / "meta/stats.json", (later, later))
    hub.requests.clear()
    assert resolve(REPO, root=root, revision="v3.0") == root
    assert hub.fetched() == ["data/chunk-000/file-000.parquet"]
    assert (root / "meta/stats.json").read_text() == '{"mine": {}}'


def test_what_was_removed_here_on_purpose_stays_away(hub, v21, tmp_path):
    hub.add(REPO, v21, tag="v2.1")
    root = resolve(REPO, root=tmp_path / "pulled")
    rows = (root / "meta/episodes.jsonl").read_text().splitlines()
    (root / "meta/episodes.jsonl").write_text("\n".join(rows[:-1]))
    dropped = [path for path in root.rglob("episode_000003.*") if ".cache" not in path.parts]
    for path in dropped:
        path.unlink()
    assert resolve(REPO, root=root, revision="v2.1") == resolve(REPO, root=root) == root
    assert len(dropped) == 2
    assert not any(path.exists() for path in dropped)


def test_a_dataset_too_large_for_the_disk_is_not_begun(hub, v30, monkeypatch, tmp_path):
    hub.add(REPO, v30, tag="v3.0")
    small = type("Usage", (), {"free": 40_000})
    monkeypatch.setattr("leray.data.hub.remote.shutil.disk_usage", lambda path: small)
    refused(lambda: resolve(REPO, root=tmp_path / "pulled"), "GiB more", "pull fewer episodes")
    assert not [name for name in hub.fetched() if name.endswith(".mp4")]


def test_the_old_name_of_the_home_is_refused(hub, monkeypatch):
    monkeypatch.setenv("LEROBOT_HOME", "somewhere")
    refused(lambda: resolve(REPO), "HF_LEROBOT_HOME")


def test_a_cache_that_cannot_be_written_serves_what_it_has(hub, home, v30):
    hub.add(REPO, v30, tag="v3.0")
    folder = resolve(REPO)
    notes = home / "hub" / "datasets--lab--demo" / "refs"
    (notes / "v3.0").unlink()
    notes.rmdir()
    notes.write_text("in the way")
    assert resolve(REPO) == folder


@pytest.mark.parametrize("named", [False, True])
def test_what_the_hub_itself_lacks_is_no_obstacle(hub, v30, monkeypatch, caplog, tmp_path, named):
    videos = [name for name in v30 if name.startswith("videos/")]
    hub.add(REPO, {name: v30[name] for name in v30 if name not in videos}, tag="v3.0")
    root = tmp_path / "pulled" if named else None
    folder = resolve(REPO, root=root)
    assert (
        f"lacks 2 files on the Hub that its metadata names, the first is {videos[0]}" in caplog.text
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(REPO, root=root) == folder
    assert resolve(REPO, root=root, episodes=[1]) == folder
    (folder / "data/chunk-000/file-000.parquet").unlink()
    refused(lambda: resolve(REPO, root=root), "not on this machine")
