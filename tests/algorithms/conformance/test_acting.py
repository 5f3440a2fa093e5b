"""What every imitation type owes to those who act and learn with it."""

import numpy as np
import pytest
import torch

from leray.data.features import Features
from leray.data.names import ACTION
from tests.algorithms.conformance.kinds import batch_for, make_policy, observe

STEPS = 7
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def episode(policy, envs, count, seeds=range(STEPS)):
    """Act for some of `count` environments, on observations that each has to itself."""
    actions = []
    for seed in seeds:
        seen = observe(policy.features, count, seed)
        rows = {name: values[list(envs)] for name, values in seen.items()}
        actions.append(policy.act(rows, envs=list(envs)))
    return np.stack(actions, 1)


def test_environments_are_played_together_as_alone(kind, no_noise):
    together = episode(make_policy(kind, **kind.still), range(3), 3)
    assert together.shape == (3, STEPS, 2)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    for env in range(3):
        alone = episode(make_policy(kind, **kind.still), [env], 3)
        np.testing.assert_allclose(together[env], alone[0], **CLOSE)
    assert np.abs(together[0] - together[1]).max() > 1e-4


def test_without_numbers_environments_count_from_zero(kind, no_noise):
    policy = make_policy(kind, **kind.still)
    numbered = episode(policy, range(2), 2)
    policy.reset()
    policy.seed(0)
    seen = [policy.act(observe(policy.features, 2, seed)) for seed in range(STEPS)]
    assert np.array_equal(numbered, np.stack(seen, 1))


def test_a_reset_forgets_one_environment_and_no_other(kind, no_noise):
    whole = episode(make_policy(kind, **kind.still), range(2), 2)
    policy = make_policy(kind, **kind.still)
    episode(policy, range(2), 2, seeds=range(4))
    policy.reset([1])
    rest = episode(policy, range(2), 2, seeds=range(4, STEPS))
    np.testing.assert_allclose(rest[0], whole[0, 4:], **CLOSE)
    fresh = episode(make_policy(kind, **kind.still), [1], 2, seeds=range(4, STEPS))
    np.testing.assert_allclose(rest[1], fresh[0], **CLOSE)
    policy.reset()
    again = episode(policy, range(2), 2)
    np.testing.assert_allclose(again, whole, **CLOSE)


def test_acting_draws_from_its_own_seed_alone(kind):
    policy, found = make_policy(kind), []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        before = torch.get_rng_state()
        policy.reset()
        policy.seed(5)
        found.append(episode(policy, range(2), 2))
        assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(*found)


def test_acting_leaves_the_network_as_it_was(kind):
    policy = make_policy(kind)
    policy.model.train()
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    first = episode(policy, range(2), 2)
    assert policy.model.training
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    policy.model.eval()
    policy.reset()
    policy.seed(0)
    assert np.array_equal(episode(policy, range(2), 2), first)


def test_dtypes_of_observations_do_not_matter(kind):
    policy = make_policy(kind)
    seen = observe(policy.features, 2)
    found = []
    for dtype in (np.float32, np.float64):
        policy.reset()
        policy.seed(0)
        rows = {k: v if v.dtype == np.uint8 else v.astype(dtype) for k, v in seen.items()}
        found.append(policy.act(rows))
    assert found[0].dtype == found[1].dtype == np.float32
    np.testing.assert_allclose(*found, **CLOSE)


def test_bfloat16_is_near_and_gives_float32(kind, no_noise):
    exact, rough = (make_policy(kind, use_amp=amp, **kind.still) for amp in (False, True))
    seen = observe(exact.features, 4)
    found = rough.act(seen)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, exact.act(seen), atol=0.6)
    assert {p.dtype for p in rough.model.parameters()} == {torch.float32}


def devices():
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("name", devices())
def test_it_moves_between_devices(kind, no_noise, name):
    policy, device = make_policy(kind, **kind.still), torch.device(name)
    before = episode(policy, range(2), 2)
    policy.to(device)
    assert policy.device == device
    assert {tensor.device.type for tensor in policy.model.state_dict().values()} == {name}
    policy.reset()
    np.testing.assert_allclose(episode(policy, range(2), 2), before, rtol=1e-2, atol=1e-2)
    policy.to(torch.device("cpu"))
    policy.reset()
    np.testing.assert_allclose(episode(policy, range(2), 2), before, **CLOSE)
    policy.to(device)
    policy.model.loss(policy.prepare(batch_for(policy)))[0].backward()


def test_the_loss_is_a_number_that_teaches(kind):
    policy = make_policy(kind)
    torch.manual_seed(0)
    loss, figures = policy.model.loss(policy.prepare(batch_for(policy)))
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    grads = [p.grad for group in policy.model.parameter_groups() for p in group["params"]]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
    assert all(grad is None or grad.isfinite().all() for grad in grads)
    assert all(not figure.requires_grad and figure.shape == () for figure in figures.values())


def test_the_same_numbers_drawn_give_the_same_loss(kind):
    first, second = (loss_of(policy, batch_for(policy)) for policy in map(make_policy, [kind] * 2))
    assert first == second


def test_padding_is_left_out_where_the_options_say_so(kind):
    if kind.heeds is None:
        pytest.skip("its loss takes padding as it is, as LeRobot's does")
    options = {**kind.heeds, **({"use_vae": False} if kind.name == "act" else {})}
    policy = make_policy(kind, **options)
    policy.model.eval()
    losses = []
    for change in (0.0, 5.0):
        raw = batch_for(policy)
        raw[ACTION][raw["action_is_pad"]] += change
        losses.append(loss_of(policy, raw))
    raw["action_is_pad"][:] = False
    assert loss_of(policy, raw) != pytest.approx(losses[0], rel=1e-3)
    if kind.name == "act":  # a U-Net sees its neighbours
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def loss_of(policy, raw):
    torch.manual_seed(0)
    return policy.model.loss(policy.prepare(raw))[0].item()


def test_pictures_are_read_in_the_order_of_the_features(seeing):
    features = {**seeing.pictures, ACTION: seeing.features[ACTION]}
    policy = make_policy(seeing, Features(features), **seeing.still)
    seen = observe(policy.features, 2)
    swapped = dict(reversed(seen.items()))
    policy.seed(0)
    first = policy.act(seen)
    policy.reset()
    policy.seed(0)
    assert np.array_equal(policy.act(swapped), first)


def test_parameter_groups_hold_each_trained_parameter_once(kind):
    policy = make_policy(kind)
    groups = policy.model.parameter_groups()
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    own = {id(parameter) for parameter in policy.model.parameters()}
    assert set(ids) <= own
