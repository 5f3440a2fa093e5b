"""The files that every policy's folder has: what older versions leave out, and what is damaged."""

import json

import pytest
import torch
from safetensors.torch import save_file

from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.plugins import register_plugins
from leray.algorithms.pretrained import read_config, read_entries, read_tensors
from leray.algorithms.registry import policy_class
from leray.errors import CheckpointError

register_plugins()

FEATURES = {
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [2]},
        "observation.images.top": {"type": "VISUAL", "shape": [3, 96, 80]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
}


def write(folder, **entries):
    (folder / "config.json").write_text(json.dumps({**FEATURES, **entries}))
    return folder


def options(folder):
    return read_config(folder, ImitationPolicyConfig).config


def test_the_order_of_features_and_the_axes_of_pictures(tmp_path):
    features = read_config(write(tmp_path, type="act"), ImitationPolicyConfig).features
    assert [(name, feature.shape) for name, feature in features.items()] == [
        ("observation.state", (2,)),
        ("observation.images.top", (96, 80, 3)),
        ("action", (2,)),
    ]


@pytest.mark.parametrize(
    ("entries", "crop"),
    [
        ({}, (84, 84)),
        ({"crop_shape": None}, None),
        ({"crop_shape": [90, 70]}, (90, 70)),
        ({"resize_shape": None, "crop_ratio": 1.0}, None),
        ({"resize_shape": [50, 40], "crop_ratio": 0.5}, (25, 20)),
    ],
)
def test_what_old_diffusion_files_leave_out_has_its_old_value(tmp_path, entries, crop):
    config = options(write(tmp_path, type="diffusion", horizon=16, **entries))
    assert config.crop_shape == crop


def test_other_types_have_no_old_values(tmp_path):
    assert options(write(tmp_path, type="vqbet")).crop_shape == (84, 84)
    assert "crop_shape" not in read_entries(write(tmp_path, type="act"))


def test_the_device_of_training_is_not_that_of_today(tmp_path):
    assert options(write(tmp_path, type="act", device="cuda:7")).device is None


def test_entries_that_are_not_ours_are_left_out(tmp_path):
    folder = write(tmp_path, type="act", chunk_size=7, n_action_steps=5, tags=["a"], rtc_config={})
    config = options(folder)
    assert (config.chunk_size, config.n_action_steps) == (7, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing or damaged"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("3", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"type": ["act"]}', "cannot be read"),
        ('{"type": "act"}', "cannot be read"),
        ('{"type": "no_such"}', "cannot be read"),
        (json.dumps({**FEATURES, "type": "act", "chunk_size": "many"}), "cannot be read"),
        (json.dumps({**FEATURES, "type": "act", "chunk_size": -1}), "--policy.chunk_size=-1"),
        (json.dumps({**FEATURES, "type": "sac"}), "it is of type sac"),
    ],
)
def test_a_config_that_cannot_be_read_is_told_in_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_config(tmp_path, ImitationPolicyConfig)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_tensors_can_be_read_in_part(tmp_path):
    tensors = {"a.x": torch.tensor([1.0]), "a.y": torch.tensor([2]), "b.x": torch.tensor([3.0])}
    save_file(tensors, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path).keys() == tensors.keys()
    assert read_tensors(tmp_path, prefixes=("b.", "c.")) == {"b.x": tensors["b.x"]}
    assert read_tensors(tmp_path, prefixes=()) == {}


def test_an_adapter_alone_is_told(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds an adapter .* merge it into its base"):
        read_tensors(tmp_path)


def test_an_error_names_the_type_it_wants(tmp_path):
    with pytest.raises(CheckpointError, match="it is of type act"):
        policy_class("sac").from_pretrained(write(tmp_path, type="act"))
