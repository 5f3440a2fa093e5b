"""`leray dataset check` as it is called: exit codes, the report, the file of findings."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from leray.errors import ConfigError, DatasetError
from leray.platform.dataset.check import CheckConfig, run

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


def set_frames(root, frames) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_frames": frames}))


def test_exit_codes(v30, capsys):
    assert run(CheckConfig(root=v30)) == 0
    assert "nothing found" in capsys.readouterr().out
    set_frames(v30, 7)
    assert run(CheckConfig(root=v30)) == 1
    assert "total_frames is 7, there are 40 [*]" in capsys.readouterr().out
    (v30 / samples.DATA_PARQUET).unlink()
    assert run(CheckConfig(root=v30, videos="none")) == 2
    assert "it cannot be used: 2 errors" in capsys.readouterr().out


def test_repair_prints_what_it_did_and_checks_again(v30, capsys):
    set_frames(v30, 7)
    assert run(CheckConfig(root=v30, repair=True)) == 0
    out = capsys.readouterr().out
    assert "  meta/info.json: total_frames is 40, it was 7" in out
    assert out.rstrip().endswith("nothing found")
    assert run(CheckConfig(root=v30, repair=True)) == 0
    assert "  nothing to mend" in capsys.readouterr().out


def test_findings_as_json(v30, tmp_path):
    set_frames(v30, 7)
    file = tmp_path / "new" / "report.json"
    run(CheckConfig(root=v30, json=file))
    report = json.loads(file.read_text())
    assert report["exit_code"] == 1
    assert report["summary"] == "v3.0, 3 episodes, 40 frames, 10 fps, 2 cameras"
    assert report["counts"] == [{"severity": "error", "code": "totals", "count": 1}]
    assert report["findings"] == [
        {
            "severity": "error",
            "code": "totals",
            "message": "total_frames is 7, there are 40",
            "file": "meta/info.json",
            "episode": None,
            "column": None,
            "repairable": True,
            "blocks": False,
        }
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        run(CheckConfig(root=v30, json=tmp_path / "file" / "x.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say --root=<folder>, or --repo_id"),
        ({"repo_id": "a/b", "repair": True}, "--repair=true needs --root"),
        ({"root": Path("x"), "videos": "slow"}, "allowed are fast, full, none"),
        ({"root": Path("x"), "tolerance_s": -1.0}, "give a number of seconds >= 0"),
        ({"root": Path("x"), "tolerance_s": float("nan")}, "give a number of seconds >= 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        CheckConfig(**options)


def test_addresses_are_refused():
    with pytest.raises(DatasetError, match="leray dataset pull"):
        run(CheckConfig(root=Path("s3://bucket/dataset")))


def test_a_named_dataset_is_looked_up(v30, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    (tmp_path / "home/me").mkdir(parents=True)
    v30.rename(tmp_path / "home/me/data")
    assert run(CheckConfig(repo_id="me/data")) == 0
    assert "3 episodes" in capsys.readouterr().out


def test_from_the_command_line(v30):
    set_frames(v30, 7)
    command = [sys.executable, "-m", "leray", "dataset", "check", f"--root={v30}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error totals" in done.stdout
    assert done.stderr == ""
    assert subprocess.run([*command, "--repair=true"], capture_output=True).returncode == 0
