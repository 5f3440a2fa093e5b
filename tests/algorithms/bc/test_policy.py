"""Behaviour cloning: acts as SAC's actor does, learns, and is stored."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leray.algorithms.bc.policy import BCPolicy
from leray.algorithms.processor import make_processor
from leray.algorithms.registry import load_policy
from leray.algorithms.sac.config import SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.data.features import Feature, Features
from leray.envs.spaces import from_spaces, to_spaces
from leray.errors import CheckpointError, FeatureMismatchError


def _batch(policy, count=64, seed=0):
    """Return observations and what a linear demonstrator does, raw."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(count, 3)).astype(np.float32)
    other = rng.normal(size=(count, 2)).astype(np.float32)
    action = np.tanh(state[:, :2] + other) * 0.9
    return {
        "observation.state": state,
        "observation.environment_state": other,
        "action": action[:, None].astype(np.float32),
        "action_is_pad": np.zeros((count, 1), np.bool_),
    }


def _train(policy, updates=300, **adam):
    optimizer = torch.optim.Adam(policy.model.parameter_groups(), lr=1e-2, **adam)
    batch = policy.prepare(_batch(policy))
    for _ in range(updates):
        loss, figures = policy.model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), figures


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("distribution", ["deterministic", "gaussian"])
def test_tensors_and_actions_are_those_of_sacs_actor(
    make_policy, observations, layer_norm, distribution
):
    policy = make_policy(layer_norm=layer_norm, distribution=distribution)
    _train(policy, updates=20)
    config = SACPolicyConfig(actor_network_kwargs=policy.config.actor_network_kwargs)
    features = from_spaces(*to_spaces(policy.features))
    sac = SACPolicy(config, make_processor(features, config.normalization_mapping, _stats()))
    named = {k: v for k, v in sac.networks.named().items() if k.startswith("actor.")}
    state = policy.model.state_dict()
    assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in state.items()}
    for name, tensor in named.items():
        tensor.copy_(state[name])
    sac.refresh()
    observations["observation.state"][0] = 1e4  # far outside: clipped alike
    np.testing.assert_allclose(
        policy.act(observations), sac.act(observations, deterministic=True), rtol=0, atol=1e-6
    )
    if distribution == "gaussian":
        policy.seed(7)
        sac.seed(7)
        np.testing.assert_allclose(
            policy.act(observations, deterministic=False),
            sac.act(observations, deterministic=False),
            rtol=0,
            atol=1e-6,
        )


def _stats():
    return {"observation.state": {"mean": [0.5, 0.0, -1.0], "std": [2.0, 1e-4, 0.5]}}


def test_the_processor_is_the_one_sac_would_make(make_policy):
    found = make_policy().processor
    features = from_spaces(*to_spaces(found.features))  # the order in which RLlib hands them on
    assert list(found.features) == list(features)
    expected = make_processor(features, found.norm_map, _stats())
    for name in features:
        ours, theirs = found.normalizer(name), expected.normalizer(name)
        assert torch.equal(ours.scale, theirs.scale)
        assert torch.equal(ours.shift, theirs.shift)


@pytest.mark.parametrize("low", [None, (-math.inf, -1.0)])
def test_without_declared_bounds_the_statistics_bound_actions(make_policy, low):
    high = None if low is None else (2.0, 3.0)
    features = {
        "observation.state": Feature("float32", (3,)),
        "action": Feature("float32", (2,), low=low, high=high),
    }
    stats = {"action": {"min": [-4.0, 0.0], "max": [4.0, 1.0]}}
    policy = make_policy(features=Features(features), stats=stats)
    policy.model.actor.layers[-1].weight.data.zero_()
    policy.model.actor.layers[-1].bias.data[0, 0] = torch.tensor([99.0, 99.0, 0, 0])
    action = policy.act({"observation.state": np.zeros((1, 3), np.float32)})
    assert action.tolist() == [[4.0, 1.0]]


def test_shapes_of_acting(make_policy, observations):
    policy = make_policy()
    whole = policy.act(observations)
    assert whole.shape == (5, 2)
    assert whole.dtype == np.float32
    windows = {key: value[:, None] for key, value in observations.items()}
    chunk = policy.predict(windows)
    assert chunk.shape == (5, 1, 2)
    np.testing.assert_allclose(chunk[:, 0], whole, atol=1e-6)
    part = {key: value[3:4] for key, value in observations.items()}
    policy.reset([3])
    np.testing.assert_allclose(policy.act(part, envs=[3])[0], whole[3], atol=1e-6)


def test_sampling_follows_the_seed_and_only_a_gaussian_samples(make_policy, observations):
    policy = make_policy(distribution="gaussian")
    policy.seed(3)
    first = [policy.act(observations, deterministic=False) for _ in range(2)]
    policy.seed(3)
    again = [policy.act(observations, deterministic=False) for _ in range(2)]
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    mode = policy.act(observations)
    assert np.array_equal(mode, policy.act(observations, deterministic=True))
    certain = make_policy()
    assert np.array_equal(certain.act(observations, deterministic=False), certain.act(observations))


def test_squared_error_teaches_the_mean_and_leaves_the_std(make_policy):
    policy = make_policy(exploration_std=0.2)
    begin = policy.model.loss(policy.prepare(_batch(policy)))[0].item()
    end, figures = _train(policy, weight_decay=0.1)
    assert end < begin / 20
    assert figures == {}
    output = policy.model(policy.prepare(_batch(policy, seed=1))["observation"])
    torch.testing.assert_close(output[:, 2:].exp(), torch.full((64, 2), 0.2))


def test_likelihood_teaches_mean_and_std(make_policy):
    policy = make_policy(distribution="gaussian", exploration_std=0.05)
    _, figures = _train(policy, updates=600)
    assert figures["squared_error"].item() < 0.01
    log_std = policy.model(policy.prepare(_batch(policy))["observation"])[:, 2:]
    # what is right to the last bit still has the spread it was given
    assert math.log(0.05) - 0.3 < log_std.mean() < math.log(0.3)


def test_the_std_takes_nothing_from_the_mean(make_policy, observations):
    certain, gaussian = (make_policy(distribution=d) for d in ("deterministic", "gaussian"))
    for policy in (certain, gaussian):
        _train(policy, updates=30)
    assert np.array_equal(certain.act(observations), gaussian.act(observations))


def test_the_loss_is_that_of_normalised_values(make_policy):
    policy = make_policy()
    batch = _batch(policy)
    loss, _ = policy.model.loss(policy.prepare(batch))
    observations = {key: batch[key] for key in list(batch)[:2]}
    half_range, middle = np.array([2.0, 2.0]), np.array([0.0, 1.0])
    expected = (policy.act(observations) - batch["action"][:, 0]) / half_range
    assert loss.item() == pytest.approx(float((expected**2).mean()), rel=1e-4)
    normalised = policy.prepare(batch)["action"][:, 0].numpy()
    np.testing.assert_allclose(normalised, (batch["action"][:, 0] - middle) / half_range, atol=1e-6)


def test_vectors_of_one_element_may_come_without_their_axis(make_policy):
    features = {
        "observation.state": Feature("float32", (1,)),
        "action": Feature("float32", (1,), low=(-2.0,), high=(2.0,)),
    }
    policy = make_policy(features=Features(features), stats={})
    batch = policy.prepare(
        {"observation.state": np.ones(4, np.float32), "action": np.ones((4, 1), np.float32)}
    )
    assert batch["observation"].shape == (4, 1)
    assert batch["action"].tolist() == [[[0.5]]] * 4
    assert policy.model.loss(batch)[0].isfinite()


def test_a_saved_policy_acts_the_same(make_policy, observations, tmp_path):
    policy = make_policy(distribution="gaussian", layer_norm=True)
    policy.save_pretrained(tmp_path)
    for loaded in (BCPolicy.from_pretrained(tmp_path), load_policy(tmp_path, "cpu")):
        assert loaded.config == policy.config
        for deterministic in (True, False):
            policy.seed(1)
            loaded.seed(1)
            assert np.array_equal(
                policy.act(observations, deterministic=deterministic),
                loaded.act(observations, deterministic=deterministic),
            )


def test_the_folder_has_the_names_of_sacs_actor(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["type"] == "bc"
    assert list(config["input_features"]) == [
        "observation.environment_state",
        "observation.state",
    ]
    shapes = {k: tuple(v.shape) for k, v in load_file(tmp_path / "model.safetensors").items()}
    assert shapes == {
        "actor.layers.0.weight": (1, 5, 16),
        "actor.layers.0.bias": (1, 1, 16),
        "actor.layers.1.weight": (1, 16, 12),
        "actor.layers.1.bias": (1, 1, 12),
        "actor.layers.2.weight": (1, 12, 4),
        "actor.layers.2.bias": (1, 1, 4),
    }


def test_weights_of_another_shape_are_refused_in_one_line(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing: actor\.layers\.0\.norm\.scale") as caught:
        make_policy(layer_norm=True).load_weights(tmp_path)
    assert "\n" not in str(caught.value)


def test_pictures_are_refused_with_what_reads_them(make_policy):
    features = {
        "observation.images.top": Feature("uint8", (8, 8, 3)),
        "observation.state": Feature("float32", (3,)),
        "action": Feature("float32", (2,)),
    }
    message = r"observation.images.top: bc reads vectors only; use --policy.type=act or diffusion"
    with pytest.raises(FeatureMismatchError, match=message):
        make_policy(features=Features(features), stats={})
