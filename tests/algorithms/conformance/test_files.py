"""What every imitation type owes to its checkpoint folder."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.config import PolicyConfig
from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.plugins import register_plugins
from leray.algorithms.processor import Processor
from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.data.names import ACTION, OBSERVATION_STATE
from leray.errors import CheckpointError, FeatureMismatchError
from tests.algorithms.conformance.kinds import (
    CAMERA,
    KINDS,
    STATE,
    exists,
    make_policy,
    observe,
    stats_of,
)

PRE, POST = "policy_preprocessor", "policy_postprocessor"
FILES = {
    "config.json",
    "model.safetensors",
    f"{PRE}.json",
    f"{PRE}_step_3_normalizer_processor.safetensors",
    f"{POST}.json",
    f"{POST}_step_0_unnormalizer_processor.safetensors",
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(path, change):
    """Change the JSON of a file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def act(policy, observations, steps=2):
    """Return the actions of some steps, from the start of an episode."""
    policy.reset()
    policy.seed(1)
    return np.stack([policy.act(observations) for _ in range(steps)])


def test_every_imitation_type_is_here():
    register_plugins()
    registered = {
        name
        for name, cls in PolicyConfig.get_known_choices().items()
        if issubclass(cls, ImitationPolicyConfig) and cls.__module__.startswith("leray.")
    }
    assert registered <= KINDS.keys()
    assert registered == {name for name in KINDS if exists(KINDS[name])}


def test_what_is_saved_is_loaded_bit_by_bit(kind, tmp_path):
    policy = make_policy(kind)
    policy.save_pretrained(tmp_path / "first")
    for loaded in (
        type(policy).from_pretrained(tmp_path / "first"),
        load_policy(tmp_path / "first"),
    ):
        assert type(loaded) is type(policy)
        assert loaded.config == policy.config
        assert list(loaded.features) == list(policy.features)
        own = policy.model.state_dict()
        assert loaded.model.state_dict().keys() == own.keys()
        assert all(torch.equal(value, own[key]) for key, value in loaded.model.state_dict().items())
        observations = observe(policy.features, 3)
        assert np.array_equal(act(loaded, observations), act(policy, observations))
        loaded.save_pretrained(tmp_path / "again")
        assert contents(tmp_path / "again") == contents(tmp_path / "first")


def test_the_folder_has_lerobots_files_and_keys(kind, tmp_path):
    policy = make_policy(kind, ema_decay=0.9, gradient_accumulation_steps=2)
    policy.save_pretrained(tmp_path)
    assert contents(tmp_path).keys() == FILES
    config = json.loads((tmp_path / "config.json").read_text())
    assert next(iter(config)) == "type"
    assert config["type"] == kind.name
    assert list(config["input_features"]) == [key for key in policy.features if key != ACTION]
    assert config["output_features"] == {ACTION: {"type": "ACTION", "shape": [2]}}
    if kind.lerobot:
        assert set(config) - set(kind.lerobot.split()) == set()
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == policy.model.state_dict().keys()
    assert all(name.startswith(kind.module) for name in tensors)


def test_other_weights_can_be_saved_in_their_place(kind, tmp_path):
    policy = make_policy(kind)
    name, tensor = next(iter(policy.model.named_parameters()))
    policy.save_pretrained(tmp_path, {name: torch.full_like(tensor, 0.5)})
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == policy.model.state_dict().keys()
    assert (stored[name] == 0.5).all()


def test_fields_of_lerobot_that_are_not_ours_are_left_out(kind, tmp_path):
    policy = make_policy(kind)
    policy.save_pretrained(tmp_path)
    foreign = {"push_to_hub": True, "repo_id": "a/b", "device": "cuda", "compile_something": 3}
    edit(tmp_path / "config.json", lambda config: config.update(foreign))
    assert load_policy(tmp_path, "cpu").config == policy.config


def test_names_of_a_compiled_network_are_read(kind, tmp_path):
    policy = make_policy(kind)
    policy.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {
        f"{first}._orig_mod.{rest}": tensor
        for (first, _, rest), tensor in ((name.partition("."), t) for name, t in tensors.items())
    }
    save_file(renamed, tmp_path / "model.safetensors")
    observations = observe(policy.features, 2)
    assert np.array_equal(act(load_policy(tmp_path), observations), act(policy, observations))


def test_weights_that_do_not_fit_are_all_listed(kind, tmp_path):
    policy = make_policy(kind)
    policy.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone, *_, bent = (name for name, tensor in tensors.items() if tensor.dim())
    shape = list(tensors[bent].shape)
    del tensors[gone]
    tensors[bent] = torch.zeros(7, *shape)
    tensors["model.stranger"] = torch.zeros(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_policy(tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        f"missing: {gone}",
        "unknown: model.stranger",
        f"of another shape: {bent} {[7, *shape]} where {shape} is needed",
    ):
        assert part in text


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_file_that_is_missing_or_damaged_is_told_in_one_line(kind, tmp_path, file):
    make_policy(kind).save_pretrained(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 3], b"", None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load_policy(tmp_path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "features",
    [
        {},
        {ACTION: Feature("float32", (2,))},
        STATE,
        {**STATE, ACTION: Feature("float32", (2, 3))},
        {"observation.state": Feature("float32", (2, 3)), ACTION: Feature("float32", (2,))},
    ],
    ids=["nothing", "no-observation", "no-action", "action-matrix", "state-matrix"],
)
def test_features_it_cannot_work_with_are_one_clear_error(kind, features):
    policy = make_policy(kind)
    processor = Processor(features=Features(features), norm_map={})
    with pytest.raises(FeatureMismatchError) as caught:
        type(policy)(policy.config, processor)
    assert "\n" not in str(caught.value)


def test_names_are_changed_as_the_folder_says(seeing, tmp_path):
    policy = make_policy(seeing, Features({**seeing.pictures, ACTION: Feature("float32", (2,))}))
    policy.save_pretrained(tmp_path)
    names = {"observation.images.cam_7": CAMERA, "agent": OBSERVATION_STATE}
    edit(
        tmp_path / f"{PRE}.json",
        lambda pre: pre["steps"][0]["config"].update(rename_map=names),
    )
    loaded = load_policy(tmp_path)
    assert set(loaded.features) == {*names, ACTION}
    observations = observe(policy.features, 2)
    outside = {theirs: observations[ours] for theirs, ours in names.items()}
    assert np.array_equal(act(loaded, outside), act(policy, observations))
    loaded.save_pretrained(tmp_path / "again")
    again = load_policy(tmp_path / "again")
    assert np.array_equal(act(again, outside), act(policy, observations))


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_actions_come_back_with_the_postprocessors_statistics(kind, tmp_path, mode):
    if not kind.lerobot:
        pytest.skip("its folders come from nowhere else")
    policy = make_policy(kind, normalization_mapping={"ACTION": mode})
    policy.save_pretrained(tmp_path)
    before = act(policy, observe(policy.features, 2))
    path = tmp_path / f"{POST}_step_0_unnormalizer_processor.safetensors"
    stats = load_file(path)
    for name, value in stats.items():
        if name.startswith(ACTION):
            stats[name] = value * 2 + (0 if name.endswith("std") else 1)
    save_file(stats, path)
    loaded = load_policy(tmp_path)
    np.testing.assert_allclose(
        act(loaded, observe(policy.features, 2)), 2 * before + 1, rtol=1e-5, atol=1e-5
    )
    loaded.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == {k: v for k, v in contents_of_files(tmp_path).items()}


def contents_of_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_statistics_are_kept_whole(kind, tmp_path):
    if not kind.lerobot:
        pytest.skip("it keeps those of SAC")
    policy = make_policy(kind)
    policy.save_pretrained(tmp_path)
    expected = {
        f"{name}.{stat}": np.asarray(value, np.float32)
        for name, stats in stats_of(policy.features).items()
        for stat, value in stats.items()
    }
    for file in FILES:
        if file.startswith("policy_") and file.endswith(".safetensors"):
            stored = load_file(tmp_path / file)
            assert stored.keys() == expected.keys()
            for name, value in expected.items():
                assert stored[name].shape == value.shape, name
                assert np.array_equal(stored[name].numpy(), value), name
