"""`leray dataset push` and `pull`, with a stand-in for the Hub."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import ConfigError, DatasetError
from leray.platform.dataset import pull, push
from leray.platform.help import help_text
from leray.platform.parsing import parse

STANDIN = Path(__file__).parents[2] / "data" / "hub" / "standin.py"


def pushed(*arguments: str) -> None:
    push.run(parse(push.PushConfig, arguments, command="dataset push"))


def pulled(*arguments: str) -> None:
    pull.run(parse(pull.PullConfig, arguments, command="dataset pull"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    name = "leray_tests_hub_standin"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STANDIN)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    standin = sys.modules[name]
    disable_progress_bars()
    monkeypatch.delenv("LEROBOT_HOME", raising=False)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", standin.WRITER)
    with standin.Hub().serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def recorded(tmp_path):
    root = tmp_path / "home" / "lab" / "demo"
    features = Features({"action": Feature("float32", (2,))})
    with DatasetWriter.create(root, fps=10, features=features) as writer:
        for _ in range(2):
            writer.add_episode({"action": np.zeros((3, 2), np.float32)}, "reach")
    return root


def test_there_and_back(hub, recorded, tmp_path, capfd):
    pushed("--repo_id=lab/demo", "--tags=[pick, place]", "--license=mit")
    out, err = capfd.readouterr()
    commit = hub.repos["lab/demo"].branches["main"]
    assert out == f"lab/demo is at {hub.url}/datasets/lab/demo/commit/{commit}\n"
    assert "hf_" not in out + err
    assert b"- place" in hub.repos["lab/demo"].head()["README.md"]
    back = tmp_path / "back"
    pulled("--repo_id=lab/demo", f"--root={back}", "--revision=v3.0", "--episodes=[0, 1]")
    assert capfd.readouterr().out == f"lab/demo: v3.0, 2 episodes, 6 frames; it is at {back}\n"
    for path in recorded.rglob("*.*"):
        assert (back / path.relative_to(recorded)).read_bytes() == path.read_bytes()


def test_a_dataset_that_is_here_needs_no_hub(hub, recorded, capfd):
    pulled("--repo_id=lab/demo")
    assert str(recorded) in capfd.readouterr().out
    assert hub.requests == []


def test_the_cache_is_asked_for(hub, recorded, tmp_path, capfd):
    pushed("--repo_id=lab/demo", f"--root={recorded}", "--private=true")
    assert hub.repos["lab/demo"].private
    pulled("--repo_id=lab/demo", "--force_cache_sync=true", "--download_videos=false")
    assert str(tmp_path / "home" / "hub") in capfd.readouterr().out


def test_wrong_options(hub, tmp_path):
    with pytest.raises(ConfigError, match="repo_id"):
        pulled()
    with pytest.raises(ConfigError, match="did you mean --repo_id"):
        pulled("--repo-id=lab/demo")
    with pytest.raises(ConfigError, match="a list"):
        pulled("--repo_id=lab/demo", "--episodes=first")
    with pytest.raises(DatasetError, match="no dataset at"):
        pushed("--repo_id=lab/demo")
    with pytest.raises(DatasetError, match="no dataset lab/absent"):
        pulled("--repo_id=lab/absent")


@pytest.mark.parametrize("config", [push.PushConfig, pull.PullConfig])
def test_every_option_is_explained(config):
    text = help_text(config, [], command="dataset push", about="About.")
    assert "--repo_id" in text
    assert "HF_TOKEN" in text
