"""`leray dataset info`: the page and the JSON file, for datasets of all versions."""

import importlib.util
import json
from pathlib import Path

import pytest

from leray.data.tools.convert import convert
from leray.errors import ConfigError, DatasetError
from leray.platform.dataset.info import InfoConfig, run
from leray.platform.help import help_text
from leray.platform.parsing import parse

_PATH = Path(__file__).parents[2] / "data/tools/v21.py"
_SPEC = importlib.util.spec_from_file_location("v21", _PATH)
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return v21.make(tmp_path_factory.mktemp("old") / "old")


@pytest.fixture
def page(capsys):
    def show(*arguments: str) -> str:
        run(parse(InfoConfig, arguments, command="dataset info"))
        return capsys.readouterr().out

    return show


def test_the_page(page, old):
    lines = page(f"--root={old}").splitlines()
    assert lines[:5] == [
        str(old),
        "  v2.1, robot so101, 10 frames/s",
        "  3 episodes, 44 frames, 0:00:04",
        "  frames per episode: 9 to 21, median 14",
        "",
    ]
    assert lines[5:9] == [
        "tasks (3)",
        "  2 episodes  pick",
        "  0 episodes  unused",
        "  1 episode   place",
    ]
    assert f"  {v21.FRONT}  64x48  h264 yuv420p, 10 frames/s, key frame every 12" in lines
    assert f"  {v21.SIDE}   64x48  av1 yuv420p, 10 frames/s, key frame every 4" in lines
    assert f"  {v21.WRIST}  64x48  pictures in the data files" in lines
    assert "  observation.state          float32  3        x, y, z" in lines
    missing = "observation.state, action, next.reward, next.done, annotation.human.validity"
    assert lines[-1] == (
        f"statistics: min, max, mean, std, count (meta/episodes_stats.jsonl); none of {missing}"
    )
    assert "findings" not in lines


def test_the_file(page, old, tmp_path):
    new = convert(old, tmp_path / "new").folder
    text = page(f"--root={new}", f"--json={tmp_path / 'info.json'}")
    content = json.loads((tmp_path / "info.json").read_text())
    assert content["version"] == "v3.0"
    assert (content["episodes"], content["frames"], content["fps"]) == (3, 44, 10.0)
    assert content["duration_s"] == pytest.approx(4.4)
    assert content["episode_frames"] == {"min": 9, "median": 14.0, "max": 21}
    assert content["tasks"][0] == {"task": "pick", "episodes": 2}
    front = content["cameras"][v21.FRONT]
    assert (front["height"], front["width"], front["codec"]) == (48, 64, "h264")
    assert front["key_frame_distance"] == 12
    assert content["features"]["action"] == {"dtype": "float32", "shape": [2], "names": None}
    assert list(content["features"])[-1] == "task_index"
    size = (new / "data/chunk-000/file-000.parquet").stat().st_size
    assert content["files"]["data"] == {"files": 1, "bytes": size}
    assert content["files"][v21.SIDE]["files"] == 1
    assert content["statistics"]["file"] == "meta/stats.json"
    assert content["statistics"]["missing"] == []
    assert content["statistics"]["keys"] == ["min", "max", "mean", "std", "count"]
    assert content["findings"] == []
    assert "v3.0, robot so101" in text


def test_oddities_are_told_and_stop_nothing(page, tmp_path):
    task = "\x1b[31mpick\nplace"
    root = v21.make(tmp_path / "odd", version="v2.0", cameras=[v21.FRONT], total_frames=40)
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": task}))
    (root / f"videos/chunk-000/{v21.FRONT}/episode_000000.mp4").write_bytes(b"no video")
    text = page(f"--root={root}")
    assert "statistics: none stored; they are computed when needed" in text
    assert "  meta/info.json says total_frames 40, there are 44" in text
    assert "is not an mp4 video" in text
    assert "?[31mpick?place" in text
    assert "\x1b" not in text


def test_many_tasks_are_cut_short(page, tmp_path):
    root = v21.make(tmp_path / "many", cameras=[])
    tasks = [{"task_index": index, "task": f"task {index}"} for index in range(1200)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    text = page(f"--root={root}")
    assert "tasks (1,200)" in text
    assert "  and 1,195 more" in text
    assert "cameras" not in text


def test_mistakes_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"say --root=<folder>, or --repo_id=<user/name>"):
        parse(InfoConfig, [], command="dataset info")
    with pytest.raises(DatasetError, match=r"no dataset at .*nowhere"):
        run(InfoConfig(root=tmp_path / "nowhere"))


def test_every_option_is_explained():
    text = help_text(InfoConfig, [], command="dataset info", about="What it is.")
    assert "--root" in text
    assert "as JSON" in text
