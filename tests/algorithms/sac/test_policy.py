"""Acting, and the checkpoint folder: same actions after a round trip, one line for any damage."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.processor import make_processor
from leray.algorithms.registry import load_policy, pick_device
from leray.algorithms.sac.config import SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.data.features import Feature, Features
from leray.errors import CheckpointError, ConfigError, FeatureMismatchError


def _observations(count=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(count, 3)).astype(np.float32),
        "observation.environment_state": rng.normal(size=(count, 2)).astype(np.float32),
    }


def test_actions_have_the_environments_units(make_policy):
    policy = make_policy()
    policy.networks.actor.flat.zero_()
    views = policy.networks.named()
    views["actor.layers.2.bias"][0, 0, :2] = torch.tensor([100.0, -100.0])
    policy.refresh()
    action = policy.act(_observations(), deterministic=True)
    assert action.dtype == np.float32
    assert action.tolist() == [[2.0, -1.0]] * 5  # tanh saturates at 1 and -1: high and low


def test_there_is_no_memory_to_forget(make_policy):
    policy, observations = make_policy(), _observations(2)
    action = policy.act(observations, deterministic=True, envs=[4, 2])
    policy.reset()
    policy.reset([4])
    assert np.array_equal(policy.act(observations, deterministic=True), action)


def test_sampling_follows_the_seed_and_the_mode_does_not(make_policy):
    policy, observations = make_policy(), _observations()
    policy.seed(3)
    first = [policy.act(observations, deterministic=False) for _ in range(2)]
    policy.seed(3)
    again = [policy.act(observations, deterministic=False) for _ in range(2)]
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    mode = policy.act(observations, deterministic=True)
    assert np.array_equal(mode, policy.act(observations, deterministic=True))


def test_every_row_of_a_batch_is_acted_on_by_itself(make_policy):
    policy, observations = make_policy(), _observations(4)
    whole = policy.act(observations, deterministic=True)
    for row in range(4):
        part = {key: value[row : row + 1] for key, value in observations.items()}
        np.testing.assert_allclose(policy.act(part, deterministic=True)[0], whole[row], atol=1e-6)


def test_returned_actions_are_not_overwritten_by_later_ones(make_policy):
    policy = make_policy()
    first = policy.act(_observations(seed=0), deterministic=True)
    kept = first.copy()
    policy.act(_observations(seed=1), deterministic=True)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_acting_block_carries_the_behaviour(make_policy, precision):
    source, target = make_policy(seed=1, precision=precision), make_policy(2, precision=precision)
    observations = _observations()
    target.load_acting_block(source.acting_block().clone())
    assert np.array_equal(
        source.act(observations, deterministic=True), target.act(observations, deterministic=True)
    )


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_saved_policy_acts_the_same(make_policy, tmp_path, layer_norm):
    policy = make_policy(layer_norm=layer_norm, num_critics=3, temperature_init=0.4)
    policy.save_pretrained(tmp_path)
    for loaded in (SACPolicy.from_pretrained(tmp_path), load_policy(tmp_path, "cpu")):
        assert loaded.config == policy.config
        observations = _observations()
        for deterministic in (True, False):
            policy.seed(1)
            loaded.seed(1)
            assert np.array_equal(
                policy.act(observations, deterministic=deterministic),
                loaded.act(observations, deterministic=deterministic),
            )
        for name, block in policy.blocks().items():
            assert torch.equal(block, loaded.blocks()[name])


def test_the_folder_has_lerobots_files_and_names(make_policy, tmp_path):
    make_policy(discount=0.95).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["type"] == "sac"
    assert config["discount"] == 0.95
    assert config["input_features"] == {
        "observation.state": {"type": "STATE", "shape": [3]},
        "observation.environment_state": {"type": "ENV", "shape": [2]},
    }
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [2]}}
    assert config["normalization_mapping"]["ACTION"] == "MIN_MAX"
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["critic_target.layers.0.weight"].shape == (2, 7, 16)
    assert tensors["log_alpha"].shape == (1,)


def test_names_of_a_newer_version_in_the_config_are_passed_over(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"push_to_hub": True}))
    SACPolicy.from_pretrained(tmp_path)


def _one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_checkpoint_is_reported(make_policy, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        SACPolicy.from_pretrained(tmp_path)
    _one_line(caught)
    with pytest.raises(CheckpointError, match=r"config\.json is missing or damaged"):
        load_policy(tmp_path)
    make_policy().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        SACPolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: "{",
        lambda raw: "[]",
        lambda raw: json.dumps({key: v for key, v in raw.items() if key != "input_features"}),
        lambda raw: json.dumps(raw | {"discount": "high"}),
        lambda raw: json.dumps(raw | {"discount": 7.0}),
        lambda raw: json.dumps(raw | {"actor_network_kwargs": {"hidden_dims": "wide"}}),
        lambda raw: json.dumps(raw | {"input_features": {"observation.state": {"type": "STATE"}}}),
        lambda raw: json.dumps(raw | {"input_features": []}),
        lambda raw: json.dumps(raw | {"input_features": {"observation.state": 3}}),
        lambda raw: json.dumps(
            raw | {"input_features": {"observation.state": {"type": "STATE", "shape": ["x"]}}}
        ),
    ],
    ids=["cut", "list", "no features", "word", "range", "width", "no shape", "kind", "int", "size"],
)
def test_a_damaged_config_is_reported_in_one_line(make_policy, tmp_path, change):
    make_policy().save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(change(raw))
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read") as caught:
        SACPolicy.from_pretrained(tmp_path)
    _one_line(caught)


@pytest.mark.parametrize("content", [b"", b"not a tensor file", b'\x08\0\0\0\0\0\0\0{"a":1}x'])
def test_damaged_weights_are_reported_in_one_line(make_policy, tmp_path, content):
    make_policy().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged") as caught:
        SACPolicy.from_pretrained(tmp_path)
    _one_line(caught)


def test_weights_cut_short_are_reported(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        SACPolicy.from_pretrained(tmp_path)


def test_weights_of_another_network_name_what_differs(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["log_alpha"]
    tensors["actor.layers.0.bias"] = torch.zeros(1, 1, 3)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, tmp_path / "model.safetensors")
    policy = make_policy()
    before = policy.networks.actor.flat.clone()
    with pytest.raises(CheckpointError) as caught:
        policy.load_weights(tmp_path)
    assert "differ for actor.layers.0.bias, extra, log_alpha:" in _one_line(caught)
    assert torch.equal(policy.networks.actor.flat, before)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"observation.state": Feature("float32", (3,))}, "sac needs an `action` vector"),
        ({"action": Feature("float32", (2,))}, "at least one"),
        (
            {
                "observation.images.top": Feature("video", (3, 8, 8)),
                "action": Feature("float32", (2,)),
            },
            "reads vectors of numbers",
        ),
    ],
)
def test_features_that_sac_cannot_use_are_refused(features, message):
    config = SACPolicyConfig()
    processor = make_processor(Features(features), config.normalization_mapping, None)
    with pytest.raises(FeatureMismatchError, match=message):
        SACPolicy(config, processor)


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device 'warp' cannot be used here") as caught:
        pick_device("warp")
    _one_line(caught)
