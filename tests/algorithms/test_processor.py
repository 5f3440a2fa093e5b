"""Normalisation and its files: modes, round trip, LeRobot's names, and damage."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from leray.algorithms.networks.encoder import STD_FLOOR
from leray.algorithms.processor import (
    Processor,
    feature_type,
    features_from_policy,
    make_processor,
    policy_features,
)
from leray.data.features import Feature, Features
from leray.errors import CheckpointError, ConfigError

STATE, ENV, ACTION = "observation.state", "observation.environment_state", "action"
FEATURES = Features(
    {
        STATE: Feature("float32", (2,)),
        ENV: Feature("float32", (1,)),
        ACTION: Feature("float32", (2,), low=(-1.0, 0.0), high=(1.0, 4.0)),
    }
)
MAPPING = {"STATE": "MEAN_STD", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}
STATS = {
    STATE: {
        "mean": [1.0, 2.0],
        "std": [2.0, 4.0],
        "min": [-3.0, 0.0],
        "max": [5.0, 8.0],
        "q01": [-1.0, 2.0],
        "q99": [3.0, 6.0],
        "q10": [1.0, 4.0],
        "q90": [2.0, 5.0],
    },
    ACTION: {"mean": [0.0, 0.0], "std": [1.0, 1.0], "min": [-9.0, -9.0], "max": [9.0, 9.0]},
}


def _normalised(processor: Processor, name: str, values: list[float]) -> list[float]:
    return processor.normalizer(name)(torch.tensor([values])).tolist()[0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("IDENTITY", [3.0, 6.0]),
        ("MEAN_STD", [1.0, 1.0]),
        ("MIN_MAX", [0.5, 0.5]),
        ("QUANTILES", [1.0, 1.0]),
        ("QUANTILE10", [3.0, 3.0]),
    ],
)
def test_modes_by_hand(mode, expected):
    # (3 - 1) / 2 and (6 - 2) / 4; (3 + 3) / 8 * 2 - 1 and 6 / 8 * 2 - 1;
    # (3 + 1) / 4 * 2 - 1 and (6 - 2) / 4 * 2 - 1; (3 - 1) / 1 * 2 - 1 and (6 - 4) / 1 * 2 - 1
    processor = make_processor(FEATURES, {"STATE": mode}, STATS)
    assert _normalised(processor, STATE, [3.0, 6.0]) == expected


def test_what_has_no_mode_or_no_statistics_stays_as_it_is():
    processor = make_processor(FEATURES, MAPPING, STATS)
    assert processor.normalizer(ENV).is_identity
    assert make_processor(FEATURES, {}, STATS).normalizer(STATE).is_identity
    assert make_processor(FEATURES, MAPPING, None).normalizer(STATE).is_identity


def test_declared_bounds_of_an_action_come_before_the_datasets():
    processor = make_processor(FEATURES, MAPPING, STATS)
    assert _normalised(processor, ACTION, [1.0, 0.0]) == [1.0, -1.0]


def test_a_datasets_range_serves_an_action_without_bounds():
    features = Features({ACTION: Feature("float32", (2,))})
    processor = make_processor(features, MAPPING, STATS)
    assert _normalised(processor, ACTION, [9.0, -9.0]) == [1.0, -1.0]


def test_a_constant_feature_is_not_blown_up():
    stats = {STATE: {"mean": [1.0, 1.0], "std": [0.0, 1e-9]}}
    processor = make_processor(FEATURES, MAPPING, stats)
    found = _normalised(processor, STATE, [1.0 + STD_FLOOR, 1.0 - STD_FLOOR])
    assert found == pytest.approx([1.0, -1.0], rel=1e-4)


def test_unknown_modes_are_refused():
    with pytest.raises(
        ConfigError, match="STATE=QUANTILE5: allowed are IDENTITY, MEAN_STD, MIN_MAX, QUANTILES"
    ):
        make_processor(FEATURES, {"STATE": "QUANTILE5"}, None)


@pytest.mark.parametrize(
    ("name", "feature", "expected"),
    [
        (STATE, Feature("float32", (2,)), "STATE"),
        (ENV, Feature("float32", (2,)), "ENV"),
        (ACTION, Feature("float32", (2,)), "ACTION"),
        ("observation.images.top", Feature("video", (3, 4, 4)), "VISUAL"),
        ("observation.images.top", Feature("uint8", (4, 4, 3)), "VISUAL"),
    ],
)
def test_types_are_lerobots(name, feature, expected):
    assert feature_type(name, feature) == expected


def test_policy_features_round_trip():
    features = Features({**FEATURES, "observation.images.top": Feature("uint8", (4, 4, 3))})
    again = features_from_policy(json.loads(json.dumps(policy_features(features))))
    assert list(again) == list(features)
    assert {key: (f.dtype, f.shape) for key, f in again.items()} == {
        key: (f.dtype, f.shape) for key, f in features.items()
    }


def test_a_saved_processor_normalises_the_same(tmp_path):
    processor = make_processor(FEATURES, MAPPING, STATS)
    processor.save(tmp_path)
    loaded = Processor.load(tmp_path, FEATURES)
    assert loaded.norm_map == MAPPING
    for name in FEATURES:
        x = torch.randn(4, FEATURES[name].size)
        assert torch.equal(loaded.normalizer(name)(x), processor.normalizer(name)(x))


def test_files_follow_lerobots_layout(tmp_path):
    make_processor(FEATURES, MAPPING, STATS).save(tmp_path)
    pre = json.loads((tmp_path / "policy_preprocessor.json").read_text())
    post = json.loads((tmp_path / "policy_postprocessor.json").read_text())
    assert [step["registry_name"] for step in pre["steps"]] == [
        "rename_observations_processor",
        "to_batch_processor",
        "device_processor",
        "normalizer_processor",
    ]
    assert [step["registry_name"] for step in post["steps"]] == [
        "unnormalizer_processor",
        "device_processor",
    ]
    for steps, index in ((pre["steps"], 3), (post["steps"], 0)):
        step = steps[index]
        kind = step["registry_name"]
        name = "policy_preprocessor" if steps is pre["steps"] else "policy_postprocessor"
        assert step["state_file"] == f"{name}_step_{index}_{kind}.safetensors"
        assert step["config"]["norm_map"] == MAPPING
        assert step["config"]["features"][ACTION] == {"type": "ACTION", "shape": [2]}
        tensors = load_file(tmp_path / step["state_file"])
        assert tensors[f"{STATE}.mean"].tolist() == [1.0, 2.0]
        assert tensors[f"{ACTION}.max"].tolist() == [1.0, 4.0]
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_a_processor_without_statistics_has_files_too(tmp_path):
    features = Features({STATE: Feature("float32", (2,))})
    make_processor(features, MAPPING, None).save(tmp_path)
    assert Processor.load(tmp_path, features).stats == {}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("policy_preprocessor.json", None),
        ("policy_preprocessor.json", b"{"),
        ("policy_preprocessor.json", b"[]"),
        ("policy_preprocessor.json", b'{"steps": []}'),
        ("policy_preprocessor.json", b'{"steps": [3]}'),
        (
            "policy_preprocessor.json",
            b'{"steps": [{"registry_name": "normalizer_processor", "config": {"norm_map": [1]}}]}',
        ),
        ("policy_preprocessor_step_3_normalizer_processor.safetensors", None),
        ("policy_preprocessor_step_3_normalizer_processor.safetensors", b"damaged"),
    ],
)
def test_damage_is_reported_in_one_line(tmp_path, file, content):
    make_processor(FEATURES, MAPPING, STATS).save(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Processor.load(tmp_path, FEATURES)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_statistics_of_another_size_are_reported(tmp_path):
    make_processor(FEATURES, MAPPING, STATS).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"observation.state.\w+ has 2 values"):
        Processor.load(tmp_path, Features({**FEATURES, STATE: Feature("float32", (3,))}))
