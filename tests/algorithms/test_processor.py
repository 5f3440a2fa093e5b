"""Normalisation and its files: modes, round trip, LeRobot's names, and damage."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from leray.algorithms.imitation.normalizer import Normalizer
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


CAMERA = "observation.images.top"
SEEN = Features(
    {
        STATE: Feature("float32", (2,)),
        CAMERA: Feature("uint8", (96, 80, 3)),
        ACTION: Feature("float32", (2,)),
    }
)
SEEN_MAP = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
SEEN_STATS = {
    STATE: {"min": np.array([0.0, 1.0]), "max": np.array([1.0, 3.0]), "count": np.array([9])},
    CAMERA: {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.25)},
    ACTION: {"min": np.array([-1.0, -1.0]), "max": np.array([1.0, 1.0])},
    "timestamp": {"mean": np.array([0.7])},
}
PRE_STATE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
POST_STATE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
ACTION_ENTRY = {ACTION: {"type": "ACTION", "shape": [2]}}
PRE = {
    "name": "policy_preprocessor",
    "steps": [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
        {
            "registry_name": "normalizer_processor",
            "config": {
                "eps": 1e-8,
                "features": {
                    STATE: {"type": "STATE", "shape": [2]},
                    CAMERA: {"type": "VISUAL", "shape": [3, 96, 80]},
                    **ACTION_ENTRY,
                },
                "norm_map": SEEN_MAP,
            },
            "state_file": PRE_STATE,
        },
    ],
}
POST = {
    "name": "policy_postprocessor",
    "steps": [
        {
            "registry_name": "unnormalizer_processor",
            "config": {"eps": 1e-8, "features": ACTION_ENTRY, "norm_map": SEEN_MAP},
            "state_file": POST_STATE,
        },
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ],
}
"""What LeRobot 0.4.4 writes for act, diffusion and vqbet."""


def seen_processor(**options):
    return Processor(features=SEEN, norm_map=SEEN_MAP, stats=SEEN_STATS, **options)


def read(path):
    return json.loads(path.read_text())


def write(folder, pre=PRE, post=POST):
    """Write processor files with other steps than ours."""
    flat = {f"{f}.{s}": np.float32(v) for f, stats in SEEN_STATS.items() for s, v in stats.items()}
    for name, pipeline in (("policy_preprocessor", pre), ("policy_postprocessor", post)):
        (folder / f"{name}.json").write_text(json.dumps(pipeline))
        for step in pipeline["steps"]:
            if "state_file" in step:
                save_file(flat, folder / step["state_file"])
    return folder


def changed(pipeline, number, **config):
    """Return a pipeline with other options of one step."""
    pipeline = json.loads(json.dumps(pipeline))
    pipeline["steps"][number]["config"].update(config)
    return pipeline


def test_files_are_those_of_lerobot(tmp_path):
    seen_processor().save(tmp_path)
    assert list(read(tmp_path / "policy_preprocessor.json").items()) == list(PRE.items())
    assert list(read(tmp_path / "policy_postprocessor.json").items()) == list(POST.items())
    for name in (PRE_STATE, POST_STATE):
        stored = load_file(tmp_path / name)
        assert {k: v.shape for k, v in stored.items()} == {
            f"{feature}.{stat}": value.shape
            for feature, stats in SEEN_STATS.items()
            for stat, value in stats.items()
        }
        assert {value.dtype for value in stored.values()} == {np.dtype(np.float32)}
        assert stored[f"{CAMERA}.std"].tolist() == [[[0.25]], [[0.25]], [[0.25]]]
    seen_processor().save(tmp_path, "cuda")
    steps = read(tmp_path / "policy_preprocessor.json")["steps"]
    assert steps[2]["config"]["device"] == "cuda"


def test_a_processor_without_statistics_has_no_state_files(tmp_path):
    features = Features({STATE: Feature("float32", (2,)), ACTION: Feature("float32", (1,))})
    make_processor(features, MAPPING, None).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    }
    assert Processor.load(tmp_path, features).stats == {}


def test_all_that_lerobot_can_say_survives(tmp_path):
    back = Processor(
        features=Features({ACTION: SEEN[ACTION]}),
        norm_map={"ACTION": "MEAN_STD"},
        stats={ACTION: {"mean": np.array([1.0, 2.0]), "std": np.array([3.0, 4.0])}},
        eps=1e-5,
    )
    names = {"observation.images.cam": CAMERA}
    processor = seen_processor(
        eps=1e-6, normalize_observation_keys={STATE}, rename_map=names, output=back
    )
    (tmp_path / "a").mkdir()
    processor.save(tmp_path / "a")
    loaded = Processor.load(tmp_path / "a", SEEN, plain=False)
    assert loaded.eps == 1e-6
    assert list(loaded.normalize_observation_keys) == [STATE]
    assert loaded.rename_map == names
    assert list(loaded.source_features) == [STATE, "observation.images.cam", ACTION]
    assert (loaded.output.eps, loaded.output.norm_map) == (1e-5, {"ACTION": "MEAN_STD"})
    assert loaded.mode(CAMERA) == "IDENTITY"
    assert loaded.mode(STATE) == loaded.mode(ACTION) == "MIN_MAX"
    normalizer = Normalizer(loaded, torch.device("cpu"))
    pictures = torch.rand(3, 2, 2)
    assert torch.equal(normalizer(CAMERA, pictures), pictures)
    assert normalizer(ACTION, torch.tensor([1.0, 0.0])).tolist() == [1.0, 0.0]
    assert normalizer.inverse(ACTION, torch.tensor([1.0, 0.0])).tolist() == [4.0, 2.0]
    (tmp_path / "b").mkdir()
    loaded.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(CheckpointError, match="rename observations, or undo") as caught:
        Processor.load(tmp_path / "a", SEEN)
    assert "\n" not in str(caught.value)


def test_batches_are_renamed_with_their_masks_also_crosswise():
    processor = seen_processor(rename_map={"a": "b", "b": "a", "c": CAMERA})
    batch = {"a": 1, "b": 2, "c": 3, "a_is_pad": 4, "c_is_pad": 5, ACTION: 6}
    assert processor.renamed(batch) == {
        "b": 1,
        "a": 2,
        CAMERA: 3,
        "b_is_pad": 4,
        f"{CAMERA}_is_pad": 5,
        ACTION: 6,
    }


def test_two_names_for_one_observation_are_refused(tmp_path):
    pre = changed(PRE, 0, rename_map={"a": CAMERA, "b": CAMERA})
    with pytest.raises(CheckpointError, match="gives two observations one name"):
        Processor.load(write(tmp_path, pre), SEEN, plain=False)


def test_steps_may_come_in_any_order_and_number(tmp_path):
    """As for pi0.5, where the normaliser is the third step and others make tokens of the state."""
    rename, batch, device, normalizer = json.loads(json.dumps(PRE["steps"]))
    normalizer["state_file"] = "policy_preprocessor_step_2_normalizer_processor.safetensors"
    text = [
        {"registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {}},
        {"registry_name": "tokenizer_processor", "config": {"max_length": 200}},
    ]
    steps = [rename, batch, normalizer, *text, device]
    back = {**POST, "steps": POST["steps"][::-1]}
    loaded = Processor.load(write(tmp_path, {**PRE, "steps": steps}, back), SEEN)
    assert loaded.stats[STATE]["max"].tolist() == [1.0, 3.0]
    assert loaded.output is None


def test_steps_that_change_numbers_in_unknown_ways_are_refused(tmp_path):
    step = {"registry_name": "relative_actions_processor", "config": {"enabled": True}}
    pre = {**PRE, "steps": [*PRE["steps"], step]}
    with pytest.raises(CheckpointError, match="the step relative_actions_processor, which is not"):
        Processor.load(write(tmp_path, pre), SEEN)
    step["config"]["enabled"] = False
    assert Processor.load(write(tmp_path, pre), SEEN).output is None
    pre["steps"][-1] = {"class": "mine.Step", "config": {}}
    with pytest.raises(CheckpointError, match=r"the step mine.Step, which is not"):
        Processor.load(write(tmp_path, pre), SEEN)


def test_features_that_the_step_does_not_list_are_not_normalised(tmp_path):
    features = {key: value for key, value in PRE["steps"][3]["config"]["features"].items()}
    del features[CAMERA]
    loaded = Processor.load(write(tmp_path, changed(PRE, 3, features=features)), SEEN)
    assert [loaded.mode(name) for name in SEEN] == ["MIN_MAX", "IDENTITY", "MIN_MAX"]


def test_the_postprocessors_mode_and_size_count_too(tmp_path):
    post = changed(POST, 0, norm_map={"ACTION": "IDENTITY"})
    loaded = Processor.load(write(tmp_path, post=post), SEEN, plain=False)
    assert loaded.output.mode(ACTION) == "IDENTITY"
    save_file({f"{ACTION}.min": np.zeros(3, np.float32)}, tmp_path / POST_STATE)
    with pytest.raises(CheckpointError, match=r"action.min has 3 values"):
        Processor.load(tmp_path, SEEN, plain=False)


def test_state_files_stay_inside_the_folder(tmp_path):
    pre = json.loads(json.dumps(PRE))
    (tmp_path / "inside").mkdir()
    pre["steps"][3]["state_file"] = f"../{PRE_STATE}"
    with pytest.raises(CheckpointError, match="outside the folder"):
        Processor.load(write(tmp_path / "inside", pre), SEEN)


def test_statistics_without_those_a_mode_needs_are_an_error():
    processor = Processor(features=SEEN, norm_map={"STATE": "QUANTILES"}, stats=SEEN_STATS)
    with pytest.raises(ConfigError, match=r"no q01 of observation.state, which QUANTILES needs"):
        Normalizer(processor, torch.device("cpu"))
    processor = Processor(features=SEEN, norm_map={"STATE": "QUANTILES"})
    x = torch.ones(2)
    assert Normalizer(processor, torch.device("cpu"))(STATE, x) is x  # as LeRobot does


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("policy_preprocessor.json", None),
        ("policy_preprocessor.json", b"{"),
        ("policy_preprocessor.json", b"[]"),
        ("policy_preprocessor.json", b'{"steps": {"a": 1}}'),
        ("policy_preprocessor.json", b'{"steps": [{"registry_name": "normalizer_processor"}]}'),
        ("policy_postprocessor.json", None),
        ("policy_postprocessor.json", b'{"steps": []}'),
        ("policy_postprocessor_step_0_unnormalizer_processor.safetensors", b"damaged"),
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
