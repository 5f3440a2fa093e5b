"""What a run says of its dataset: the same dataset is told the same way wherever it lies."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from leray.data.hub.local import RECORD, Cache, Record
from leray.errors import DatasetError
from leray.files import write_json
from leray.platform.lineage import dataset_lineage
from leray.platform.sections import DatasetConfig, ValidationConfig
from tests.data.stream import datasets

REPO = "lab/reach"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NONE_HELD_OUT = ValidationConfig()


@pytest.fixture(params=["v3.0", "v2.1"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return datasets.make(
        tmp_path / "reach", version=request.param, lengths=(7, 12, 4, 5), data_files=(2, 2)
    ).root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def digest(root: Path, **options) -> str:
    return dataset_lineage(DatasetConfig(root=root, **options), NONE_HELD_OUT)[0].digest


def test_a_local_dataset(root):
    (found,) = dataset_lineage(DatasetConfig(root=root), NONE_HELD_OUT)
    assert (found.context, found.name) == ("training", "reach")
    assert (found.source_type, found.source) == ("local", {"uri": str(root.resolve())})
    assert len(found.digest) == 32
    assert found.profile["num_episodes"] == 4
    assert found.profile["num_frames"] == found.profile["num_rows"] == 28
    assert "episodes" not in found.profile
    shape = found.profile["features"]["action"]["shape"]
    column = {"name": "action", "type": f"float32[{shape[0]}]", "required": True}
    assert column in found.schema["mlflow_colspec"]
    json.dumps([found.schema, found.profile])


def test_held_out_episodes_are_a_dataset_of_their_own(root):
    training, validation = dataset_lineage(DatasetConfig(root=root), ValidationConfig(episodes=[1]))
    assert (training.context, validation.context) == ("training", "validation")
    assert training.profile["episodes"] == [0, 2, 3]
    assert validation.profile["episodes"] == [1]
    assert (training.profile["num_frames"], validation.profile["num_frames"]) == (16, 12)
    assert len({training.digest, validation.digest, digest(root)}) == 3


def test_the_digest_follows_the_episodes_and_not_the_place(root, tmp_path):
    whole = digest(root)
    shutil.copytree(root, tmp_path / "elsewhere" / "copy")
    assert digest(tmp_path / "elsewhere" / "copy") == whole
    assert digest(root, episodes=[0, 1, 2, 3]) == whole
    assert digest(root, episodes=[0, 1]) == digest(root, episodes=[1, 0]) != whole
    assert digest(root, episodes=[0, 2]) != digest(root, episodes=[0, 1])
    (root / "README.md").write_text("changed")
    assert digest(root) == whole


def test_the_digest_of_some_episodes_needs_their_files_only(root, tmp_path):
    some = digest(root, episodes=[0, 1])
    last = sorted((root / "data").rglob("*.parquet"))[-1]
    last.unlink()
    assert digest(root, episodes=[0, 1]) == some
    with pytest.raises(DatasetError, match=f"{last.name} is missing"):
        digest(root)


def test_the_digest_sees_a_change(root):
    before = digest(root)
    path = sorted((root / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    grown = digest(root)
    info = root / "meta" / "info.json"
    info.write_text(info.read_text().replace('"fps": 10', '"fps": 11'))
    assert len({before, grown, digest(root)}) == 3


def test_a_pulled_folder_names_its_commit(root):
    write_json(root / RECORD, {"repo_id": REPO, "revision": "main", "commit": COMMIT, "absent": []})
    (found,) = dataset_lineage(DatasetConfig(repo_id=REPO, root=root), NONE_HELD_OUT)
    assert (found.name, found.source_type) == (REPO, "hugging_face")
    assert found.source == {"path": REPO, "revision": COMMIT}
    assert found.digest == digest(root)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_cache_s_folder_names_its_commit(root, home, revision):
    cache = Cache(REPO)
    shutil.copytree(root, cache.snapshot(COMMIT))
    cache.remember(Record(REPO, "main", COMMIT))
    (found,) = dataset_lineage(DatasetConfig(repo_id=REPO, revision=revision), NONE_HELD_OUT)
    assert found.source == {"path": REPO, "revision": COMMIT}
    assert found.digest == digest(root)


def test_one_s_own_dataset_in_the_home_is_local(root, home):
    shutil.copytree(root, home / REPO)
    (found,) = dataset_lineage(DatasetConfig(repo_id=REPO), NONE_HELD_OUT)
    assert (found.name, found.source_type) == (REPO, "local")
    assert found.source == {"uri": str((home / REPO).resolve())}


def test_a_dataset_that_is_not_here_is_not_fetched(home):
    with pytest.raises(DatasetError, match="lab/reach is not on this machine"):
        dataset_lineage(DatasetConfig(repo_id=REPO), NONE_HELD_OUT)
