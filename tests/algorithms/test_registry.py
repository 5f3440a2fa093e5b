"""From names of policies to what is behind them."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from leray.algorithms import registry
from leray.algorithms.registry import load_policy, pick_device, policy_class
from leray.errors import CheckpointError, ConfigError
from tests.algorithms.conformance.kinds import KINDS, make_policy, observe


@pytest.fixture
def folder(tmp_path):
    make_policy(KINDS["bc"]).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_types_lead_to_their_policy():
    assert policy_class("act").__name__ == "ACTPolicy"
    with pytest.raises(ConfigError, match=r"policy type 'atc' is unknown: allowed are act, appo"):
        policy_class("atc")


def test_a_policy_is_loaded_from_a_path_or_its_text(folder, monkeypatch):
    observations = observe(KINDS["bc"].features, 2)
    expected = make_policy(KINDS["bc"]).act(observations)
    monkeypatch.setenv("HOME", str(folder.parent))
    for path in (folder, str(folder), "~/policy"):
        assert np.array_equal(load_policy(path, "cpu").act(observations), expected)


def test_a_policy_of_the_hub_is_loaded_by_its_name(folder, monkeypatch):
    asked = []

    def pretrained_folder(name, revision):
        asked.append((name, revision))
        return folder

    monkeypatch.setattr(registry, "pretrained_folder", pretrained_folder)
    load_policy("lab/policy", "cpu", revision="v1")
    assert asked == [("lab/policy", "v1")]


def test_what_is_no_policy_is_refused(folder, tmp_path):
    for path, words in ((tmp_path / "none", "no such folder"), (tmp_path, "is missing or damaged")):
        with pytest.raises(CheckpointError, match=words):
            load_policy(path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"bc"', '"future"'))
    with pytest.raises(ConfigError, match="policy type 'future' is unknown"):
        load_policy(folder)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=re.escape(str(folder))):
        load_policy(folder)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(None).type in ("cpu", "cuda")
    for name in ("tpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device '{name}' cannot be used here"):
            pick_device(name)


def test_the_hubs_client_is_imported_only_when_it_is_needed():
    program = "import sys, leray.algorithms.registry; print('huggingface_hub' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout == "False\n"
