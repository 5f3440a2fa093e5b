"""Datasets published on the Hub: what goes there, what stays, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from leray.data.hub.download import resolve
from leray.data.hub.upload import push
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

SAMPLES = Path(__file__).parents[4] / "shared" / "data"
CAMERA = "observation.images.front"
REPO = "lab/demo"


@pytest.fixture
def publish(hub, standin):
    """Push with a token that may write."""

    def call(root, repo_id=REPO, **options):
        return push(root, repo_id, token=standin.WRITER, **options)

    return call


@pytest.fixture
def published(hub):
    """What is at a branch of the repo, without the Hub's own file."""

    def files(branch="main"):
        there = hub.repos[REPO].head(branch)
        return {name: content for name, content in there.items() if name != ".gitattributes"}

    return files


def refused(call, *words: str) -> str:
    """Run a call that must fail with one line that holds the words."""
    with pytest.raises(DatasetError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def test_there_and_back(hub, publish, published, dataset, tmp_path, contents):
    address = publish(dataset)
    repo = hub.repos[REPO]
    assert address == f"{hub.url}/datasets/{REPO}/commit/{repo.branches['main']}"
    assert repo.tags == {"v3.0": repo.branches["main"]}
    assert not repo.private
    card = published()["README.md"]
    assert published() == contents(dataset) | {"README.md": card}
    assert contents(resolve(REPO, root=tmp_path / "back")) == published()
    assert not (dataset / "README.md").exists()


@pytest.mark.parametrize("name", ["gr1_picknplace_v20", "so101_rosbag_v30"])
def test_recorded_datasets_go_there_and_back(publish, published, tmp_path, contents, name):
    root = SAMPLES / name
    if not root.is_dir():
        pytest.skip(f"the recorded dataset {name} is not on this machine")
    publish(root)
    back = contents(resolve(REPO, root=tmp_path / "back"))
    there = contents(root)
    del there["SOURCES.md"], back["README.md"]
    assert back == there
    part = resolve(REPO, root=tmp_path / "part", episodes=[1])
    whole, some = DatasetReader.open(root, episodes=[1]), DatasetReader.open(part, episodes=[1])
    for key, column in whole.read().arrays.items():
        np.testing.assert_array_equal(some.read([key])[key], column)


def test_the_card_describes_the_dataset(publish, published, dataset):
    publish(dataset, tags=["pick", "LeRobot", "a: b"], license="mit")
    _, front, body = published()["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "mit",
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "leray", "pick", "a: b"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    for line in (
        f"# {REPO}",
        "| Robot | so101 |",
        "| Episodes | 3 |",
        "| Frames | 12 |",
        "| Frames per second | 10 |",
        "| Cameras | none |",
        "| Tasks | reach |",
        "| `action` | float32 | 2 | x, y |",
        "| `timestamp` | float32 | 1 |  |",
        f"leray dataset pull --repo_id={REPO} --root=<folder>",
    ):
        assert line in body.splitlines()


def test_the_card_stays_within_its_tables(publish, published, place, v30):
    info = json.loads(v30["meta/info.json"])
    info["robot_type"] = "arm | <script>\n# `x`"
    del v30["README.md"]
    publish(place({**v30, "meta/info.json": json.dumps(info).encode()}))
    lines = published()["README.md"].decode().splitlines()
    assert "| Robot | arm \\| &lt;script> # 'x' |" in lines
    assert f"| Cameras | `{CAMERA}` |" in lines
    assert f"| `{CAMERA}` | video | 8 x 8 x 3 | h, w, channels |" in lines


def test_a_card_that_somebody_wrote_is_kept(hub, publish, published, dataset):
    hub.add(REPO, {"README.md": b"---\nlicense: mit\n---\nMine."})
    publish(dataset)
    assert published()["README.md"].endswith(b"Mine.")
    (dataset / "README.md").write_text("---\nlicense: mit\n---\nFrom the folder.")
    publish(dataset)
    assert published()["README.md"].endswith(b"From the folder.")


def test_temporary_files_stay_here(publish, published, place, v30):
    extra = [
        "images/front/episode-000000/frame-000000.png",
        "meta/.info.json.17.tmp",
        "data/chunk-000/file-007.parquet.orphan",
        "videos/front.mp4.tmp",
        "data/.cache/x.parquet",
        ".cache/leray/pulled.json",
        "notes.txt",
    ]
    publish(place(v30 | dict.fromkeys(extra, b"{}")))
    assert published() == v30


def test_what_the_dataset_has_no_more_leaves_the_branch(hub, publish, published, dataset, v30):
    old = hub.add(REPO, {**v30, "notes.txt": b"kept"}, tag="v3.0").branches["main"]
    publish(dataset)
    assert set(published()) == {
        "README.md",
        "notes.txt",
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
    }
    repo = hub.repos[REPO]
    assert repo.tags == {"v3.0": repo.branches["main"]}
    assert (
        repo.commits[old]["data/chunk-000/file-001.parquet"]
        == v30["data/chunk-000/file-001.parquet"]
    )


def test_without_videos_those_on_the_hub_stay(hub, publish, published, place, v30):
    hub.add(REPO, {**v30, "videos/old.mp4": b"old", "data/old.parquet": b"old"})
    local = {name: content for name, content in v30.items() if not name.startswith("videos/")}
    publish(place(local), push_videos=False)
    assert published() == {**v30, "videos/old.mp4": b"old"}


def test_patterns_publish_some_files_and_remove_none(hub, publish, published, place, v30):
    hub.add(REPO, {"data/old.parquet": b"old", "README.md": b"---\nlicense: mit\n---"})
    root = place(v30)
    publish(root, allow_patterns=["meta/*.json", "*.png"])
    assert set(published()) == {
        "data/old.parquet",
        "README.md",
        "meta/info.json",
        "meta/stats.json",
    }
    refused(lambda: publish(root, allow_patterns=["*.png"]), "no file to publish", "*.png")


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_older_versions_keep_their_tag(hub, publish, place, v21, contents, version):
    info = json.loads(v21["meta/info.json"]) | {"codebase_version": version}
    files = {**v21, "meta/info.json": json.dumps(info).encode()}
    publish(place(files))
    assert list(hub.repos[REPO].tags) == [version]
    card = hub.repos[REPO].head()["README.md"]
    assert contents(resolve(REPO)) == files | {"README.md": card}


def test_a_branch_leaves_main_alone(hub, publish, published, dataset, place, v30):
    publish(dataset)
    before = published()
    publish(place(v30), branch="cameras", commit_message="With cameras")
    assert published() == before
    assert published("cameras") == v30
    assert hub.repos[REPO].tags == {"v3.0": hub.repos[REPO].branches["cameras"]}


def test_private_means_private(hub, publish, dataset, v30):
    publish(dataset, private=True)
    assert hub.repos[REPO].private
    publish(dataset)
    assert hub.repos[REPO].private
    before = hub.add("lab/public", v30).head()
    refused(lambda: publish(dataset, "lab/public", private=True), "is public", "make it private")
    assert hub.repos["lab/public"].head() == before


def test_a_part_of_a_dataset_is_not_published(hub, publish, place, v30):
    hub.add(REPO, v30, tag="v3.0")
    folder = resolve(REPO, episodes=[0])
    hub.requests.clear()
    refused(lambda: publish(folder), "lacks 2 files", "data/chunk-000/file-001.parquet", "pull")
    without = {name: v30[name] for name in v30 if not name.endswith("file-001.mp4")}
    refused(lambda: publish(place(without)), "lacks 1 files", "push without videos")
    assert hub.requests == []


def test_a_camera_that_is_only_declared_is_no_obstacle(hub, publish, published, place, v30):
    hub.add(REPO, {**v30, "data/old.parquet": b"old"})
    local = {name: content for name, content in v30.items() if not name.startswith("videos/")}
    publish(place(local))
    assert published() == v30  # its files on the Hub, if any, stay


def test_linked_folders_are_not_passed_over(hub, publish, place, v30, tmp_path):
    hub.add(REPO, v30)
    root = place(v30)
    (root / "videos").rename(tmp_path / "elsewhere")
    (root / "videos").symlink_to(tmp_path / "elsewhere")
    refused(lambda: publish(root), "lacks 2 files", "links to folders")
    assert hub.requests == []


def test_what_is_no_dataset_is_not_published(hub, publish, tmp_path, place, v30):
    refused(lambda: publish(tmp_path / "none"), "no dataset")
    refused(lambda: publish(place(v30 | {"meta/info.json": b"{"})), "not readable JSON")
    refused(lambda: publish(tmp_path, "no good name"), "is no repo id")
    assert hub.requests == []


def test_an_interrupted_push_is_finished_by_the_next(hub, standin, publish, published, place, v30):
    old = hub.add(REPO, {"meta/info.json": b"{}"}, tag="v3.0").branches["main"]
    root = place(v30)
    digest = standin.oid("x.mp4", v30[f"videos/{CAMERA}/chunk-000/file-001.mp4"])
    hub.refuse = lambda r: standin.RefusalError(403) if r.path.endswith(digest) else None
    refused(lambda: publish(root), REPO, "403")
    assert hub.repos[REPO].tags == {"v3.0": old}  # readers see what was there before
    arrived = set(hub.storage)
    assert arrived
    hub.refuse = lambda r: None
    hub.requests.clear()
    publish(root)
    sent = {r.path.rpartition("/")[2] for r in hub.requests if r.method == "PUT"}
    assert digest in sent
    assert not sent & arrived
    assert published() == v30
    hub.requests.clear()
    publish(root)
    assert not [r for r in hub.requests if r.method == "PUT" or "/commit/" in r.path]


def test_refusals_of_the_hub(hub, standin, publish, dataset):
    refused(lambda: push(dataset, REPO), REPO, "hf auth login")
    text = refused(lambda: push(dataset, REPO, token="hf_wrong"), REPO, "hf auth login")
    assert "hf_wrong" not in text
    assert hub.repos == {}
    refused(lambda: publish(dataset, license="secret"), '"license" must be one of apache-2.0, mit')
    refused(lambda: push(dataset, REPO, token=standin.READER), REPO)
    hub.refuse = lambda r: standin.RefusalError(507, message="storage is full")
    refused(lambda: publish(dataset), "storage is full")
