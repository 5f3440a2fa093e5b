"""What is odd about datasets that others recorded is found, and mended as far as it follows."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.check.dataset import check
from leray.data.tools.repair.dataset import repair

SAMPLES = Path(__file__).parents[4] / "shared" / "data"
CAMERA = "observation.images.ego_view"


def sample(name: str) -> Path:
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the recorded dataset {name} is not on this machine")
    return SAMPLES / name


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def messages(report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.code, []).append(f"{finding.where}: {finding.message}")
    return found


def test_gr1_picknplace_v20():
    report = check(sample("gr1_picknplace_v20"))
    assert report.exit_code == 1
    found = messages(report)
    info = "meta/info.json"
    assert found["totals"] == [
        f"{info}: total_videos is 2, there are 5",
        f"{info}: total_chunks is 0, there are 1",
    ]
    assert found["splits"] == [f"{info}: split 'train' is '0:100'; it must be a range within 0:5"]
    assert found["absent"] == [f"{info}, observation.images.egoview: is declared but has no videos"]
    assert found["bookkeeping"] == [
        f"{info}, frame_index: is not declared",
        f"{info}, timestamp: is float64; LeRobot writes float32",
    ]
    assert len(found["timestamp"]) == 5
    assert "they begin at 0.05 s instead of 0, and go on regularly" in found["timestamp"][0]
    assert f"meta/stats.json, {CAMERA}: there are none" in found["statistics"]
    assert len(found["key-frames"]) == 5
    assert {f.severity for f in report.findings if f.code == "episode-tasks"} == {"note"}


def test_so101_rosbag_v30():
    report = check(sample("so101_rosbag_v30"), videos="full")
    assert report.exit_code == 1
    found = messages(report)
    assert set(found) == {"statistics", "episode-statistics", "constant"}
    assert [line.split(":")[0] for line in found["constant"]] == ["observation.state", "action"]
    assert all("6 of 6 elements never change" in line for line in found["constant"])
    of_camera = [line for line in found["statistics"] if "observation.images.wrist" in line]
    assert "LeRobot 0.4.0 to 0.5.1 computed it wrongly" in of_camera[0]
    of_camera = [line for line in found["episode-statistics"] if "images.wrist" in line]
    assert len(of_camera) == 6
    assert any("action: std of element" in line for line in found["statistics"])


def test_repair_of_gr1_picknplace_v20(tmp_path):
    root = tmp_path / "d"
    shutil.copytree(sample("gr1_picknplace_v20"), root)
    before = digests(root)
    actions = DatasetReader.open(root).read(["action"])["action"]
    repair(root)
    report = check(root)
    assert report.exit_code == 0
    assert {f.code for f in report.findings} == {
        "bookkeeping",
        "schema",
        "episode-tasks",
        "constant",
        "key-frames",
    }
    assert not any(f.repairable for f in report.findings)
    assert set(before.values()) <= set(digests(root).values())
    reader = DatasetReader.open(root)
    columns = reader.read()
    np.testing.assert_array_equal(columns["action"], actions)
    np.testing.assert_array_equal(columns.timestamp, columns.frame_index / 20)
    assert columns.timestamp.dtype == np.float64
    assert reader.stats[CAMERA]["std"].min() > 0.1
    assert repair(root) == []


def test_repair_of_so101_rosbag_v30(tmp_path):
    root = tmp_path / "d"
    shutil.copytree(sample("so101_rosbag_v30"), root)
    before = digests(root)
    repair(root)
    report = check(root)
    assert {f.code for f in report.findings} == {"constant"}
    assert set(before.values()) <= set(digests(root).values())
    stats = DatasetReader.open(root).stats
    assert stats["observation.state"]["std"].tolist() == [0.0] * 6
    assert 0.05 < stats["observation.images.wrist"]["std"].min() < 0.3
