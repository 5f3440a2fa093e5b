"""A repair that is killed between any two disk operations: nothing is lost, the next finishes."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.check.dataset import check
from leray.data.tools.repair.dataset import repair

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)


class KilledError(BaseException):
    """Stands for a kill: nothing after it reaches the disk."""


class Disk:
    """Lets a number of changes of folders happen, then fails every further one."""

    def __init__(self, monkeypatch) -> None:
        self.left = 10**9
        for holder, name in ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (os, "link")):
            monkeypatch.setattr(holder, name, self._limited(getattr(holder, name)))

    def _limited(self, original):
        def limited(*args, **kwargs):
            if self.left <= 0:
                raise KilledError
            self.left -= 1
            return original(*args, **kwargs)

        return limited


def damage(root, version) -> None:
    """Break a little of everything that can be mended."""
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["frame_index"]
    info["features"]["ghost"] = {"dtype": "float32", "shape": [1], "names": None}
    info.update(total_frames=1, splits={"train": "0:50"})
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in (root / "data").rglob("*.parquet"):
        table = pq.read_table(path).drop(["frame_index"])
        place = table.column_names.index("index")
        pq.write_table(table.set_column(place, "index", pa.array([0] * len(table))), path)
    if version == "v3.0":
        rows = {"task_index": [1], "task": ["place"]}
        pq.write_table(pa.table(rows), root / "meta/tasks.parquet")
        episodes = pq.read_table(root / samples.EPISODES_PARQUET)
        dropped = ["dataset_from_index", "stats/action/mean"]
        pq.write_table(episodes.drop(dropped), root / samples.EPISODES_PARQUET)
    else:
        (root / "meta/tasks.jsonl").write_text('{"task_index": 1, "task": "place"}')
        (root / "meta/episodes_stats.jsonl").unlink()
    (root / "data/chunk-000/stray.parquet").write_bytes(b"PAR1")
    (root / "meta/.x.tmp").write_bytes(b"left")


def digests(root) -> set[str]:
    return {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_kill_between_any_two_disk_operations(tmp_path, monkeypatch, version):
    damaged = samples.build(tmp_path / "damaged", version)
    damage(damaged, version)
    before, report = digests(damaged), check(damaged)
    flawless = DatasetReader.open(samples.build(tmp_path / "flawless", version))
    disk = Disk(monkeypatch)
    finished, killed = False, 0
    for operations in range(200):
        root = tmp_path / "d"
        shutil.copytree(damaged, root)
        disk.left = operations
        try:
            repair(root, report)
            finished = True
        except KilledError:
            killed += 1
        disk.left = 10**9
        assert before <= digests(root)
        for path in root.rglob("*.json"):
            json.loads(path.read_text())
        repair(root)
        left = check(root)
        assert left.exit_code == 0, left.text()
        assert before <= digests(root)
        info = dict(DatasetReader.open(root).metadata.info)
        assert info == flawless.metadata.info
        shutil.rmtree(root)
        if finished:
            break
    assert finished
    assert killed > 15
