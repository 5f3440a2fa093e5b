"""Folders of LeRobot 0.3, which keep statistics among the weights and have no processor files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.imitation.migration import network_weights, read_processor
from leray.algorithms.imitation.normalizer import Normalizer
from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE
from leray.errors import CheckpointError
from tests.algorithms.conformance.kinds import CAMERA, KINDS, exists, make_policy, observe

SINCE = ("resize_shape", "crop_ratio", "pretrained_path", "use_peft", "compile_model")
"""Entries of `config.json` that 0.3 does not have."""
STATS = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max")}
CPU = torch.device("cpu")


def make_old(folder):
    """Turn a folder of today's into one of 0.3."""
    config = json.loads((folder / "config.json").read_text())
    stats = load_file(folder / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    tensors = load_file(folder / "model.safetensors")
    for name, feature in (config["input_features"] | config["output_features"]).items():
        for stat in STATS.get(config["normalization_mapping"].get(feature["type"]), ()):
            buffer = f"buffer_{name.replace('.', '_')}.{stat}"
            roles = (
                ("normalize_targets", "unnormalize_outputs")
                if name == ACTION
                else ("normalize_inputs",)
            )
            for role in roles:
                tensors[f"{role}.{buffer}"] = stats[f"{name}.{stat}"].clone()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({key: config[key] for key in config if key not in SINCE})
    )
    for path in folder.glob("policy_*"):
        path.unlink()


def act(policy, observations):
    policy.seed(1)
    return policy.act(observations)


@pytest.mark.parametrize("name", ["act", "diffusion", "vqbet"])
@pytest.mark.parametrize("mode", STATS)
def test_an_old_folder_acts_as_the_same_policy_does_today(tmp_path, name, mode):
    if not exists(KINDS[name]):
        pytest.skip(f"there is no {name} yet")
    kind = KINDS[name]
    features = Features({**kind.pictures, ACTION: Feature("float32", (2,))})
    mapping = {"VISUAL": "MEAN_STD", "STATE": mode, "ACTION": mode}
    policy = make_policy(kind, features, normalization_mapping=mapping)
    policy.save_pretrained(tmp_path / "old")
    make_old(tmp_path / "old")
    observations = observe(policy.features, 3)
    expected = act(policy, observations)
    old = load_policy(tmp_path / "old")
    assert old.config == policy.config
    assert np.array_equal(act(old, observations), expected)
    old.save_pretrained(tmp_path / "new")  # has processor files
    assert np.array_equal(act(load_policy(tmp_path / "new"), observations), expected)


FEATURES = Features(
    {
        OBSERVATION_STATE: Feature("float32", (3,)),
        ENVIRONMENT_STATE: Feature("float32", (2,)),
        CAMERA: Feature("uint8", (4, 4, 3)),
        ACTION: Feature("float32", (2,)),
    }
)
BUFFERS = {
    "normalize_inputs.buffer_observation_state.min": [0.0, -1.0, 2.0],
    "normalize_inputs.buffer_observation_state.max": [1e-7, 1.0, 2.0],
    "normalize_inputs.buffer_observation_environment_state.mean": [1.0, 2.0],
    "normalize_inputs.buffer_observation_environment_state.std": [2.0, 0.0],
    "normalize_inputs.buffer_observation_images_left_wrist.mean": [[[0.1]], [[0.2]], [[0.3]]],
    "normalize_inputs.buffer_observation_images_left_wrist.std": [[[1.0]], [[2.0]], [[4.0]]],
    "normalize_targets.buffer_action.min": [0.0, -2.0],
    "normalize_targets.buffer_action.max": [3e-8, 2.0],
    "unnormalize_outputs.buffer_action.min": [0.0, -2.0],
    "unnormalize_outputs.buffer_action.max": [3e-8, 2.0],
    "model.layer.weight": [5.0],
}
MAPPING = {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "VISUAL": "MEAN_STD", "ACTION": "MIN_MAX"}


def write(folder, **changes):
    values = {**BUFFERS, **changes}
    tensors = {name: torch.tensor(value) for name, value in values.items() if value is not None}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_names_with_underscores_are_found_and_pictures_keep_their_shape(tmp_path):
    processor = read_processor(write(tmp_path), FEATURES, MAPPING)
    assert processor.stats.keys() == set(FEATURES)
    assert processor.stats[CAMERA]["mean"].shape == (3, 1, 1)
    normalizer = Normalizer(processor, CPU)
    x = torch.full((1, 3, 2, 2), 2.3)
    found = normalizer(CAMERA, x)[0, :, 0, 0].tolist()
    assert found == pytest.approx([2.2, 1.05, 0.5])
    found = normalizer(ENVIRONMENT_STATE, torch.tensor([3.0, 2.0])).tolist()
    assert found == [1.0, 0.0]


def test_the_width_of_a_range_is_a_little_larger_as_it_was(tmp_path):
    processor = read_processor(write(tmp_path), FEATURES, MAPPING)
    normalizer = Normalizer(processor, CPU)
    # 2 * 5e-8 / (1e-7 + 1e-8) - 1, and (2 - 2) / 1e-8 where nothing moves
    found = normalizer(OBSERVATION_STATE, torch.tensor([5e-8, 0.5, 2.0])).tolist()
    assert found == pytest.approx([10 / 11 - 1, 0.5, -1.0], rel=1e-5)
    found = normalizer(ACTION, torch.tensor([1e-8, 1.0])).tolist()
    assert found == pytest.approx([2 / 4 - 1, 0.5], abs=1e-6)
    # on the way back it was not: 3e-8 (0.5 + 1) / 2
    found = normalizer.inverse(ACTION, torch.tensor([0.5, 0.5])).tolist()
    assert found == pytest.approx([2.25e-8, 1.0], rel=1e-5)
    processor.save(tmp_path)
    again = Normalizer(read_processor(tmp_path, FEATURES, {}), CPU)
    x = torch.tensor([0.25, -0.75])
    assert torch.equal(again(ACTION, x), normalizer(ACTION, x))
    assert torch.equal(again.inverse(ACTION, x), normalizer.inverse(ACTION, x))


def test_actions_may_come_back_by_other_statistics(tmp_path):
    folder = write(tmp_path, **{"unnormalize_outputs.buffer_action.max": [1.0, 6.0]})
    normalizer = Normalizer(read_processor(folder, FEATURES, MAPPING), CPU)
    assert normalizer.inverse(ACTION, torch.tensor([1.0, 0.0])).tolist() == [1.0, 2.0]


def test_what_was_not_normalised_has_no_statistics(tmp_path):
    save_file({"model.layer.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    processor = read_processor(tmp_path, FEATURES, dict.fromkeys(MAPPING, "IDENTITY"))
    assert processor.stats == {}
    assert processor.output is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalize_inputs.buffer_observation_state.max": None}, "observation_state.max"),
        ({"unnormalize_outputs.buffer_action.min": None}, "unnormalize_outputs.buffer_action.min"),
        (
            {"normalize_inputs.buffer_observation_environment_state.std": [1.0, float("inf")]},
            "is not finite",
        ),
        ({"normalize_targets.buffer_action.min": [1.0] * 3}, "action.m.. has 3 values"),
    ],
)
def test_incomplete_statistics_are_told_in_one_line(tmp_path, change, words):
    if "3 values" in words:
        change |= {"normalize_targets.buffer_action.max": [2.0] * 3}
    with pytest.raises(CheckpointError, match=words) as caught:
        read_processor(write(tmp_path, **change), FEATURES, MAPPING)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_only_weights_of_the_network_are_left():
    names = (*BUFFERS, "vqbet._orig_mod.head.bias", "_orig_mod.x", "model.normalize_inputs.w")
    kept = network_weights({name: torch.zeros(1) for name in names})
    assert set(kept) == {
        "model.layer.weight",
        "vqbet.head.bias",
        "x",
        "model.normalize_inputs.w",
    }
