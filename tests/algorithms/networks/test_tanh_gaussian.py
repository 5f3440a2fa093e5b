"""The squashed Gaussian against `torch.distributions` and autograd."""

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from leray.algorithms.networks import tanh_gaussian
from leray.algorithms.networks.tanh_gaussian import LOG_STD_MAX, LOG_STD_MIN


def _output(batch: int = 64, actions: int = 3, spread: float = 1.0):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(batch, 2 * actions, generator=generator) * spread
    return output, torch.randn(batch, actions, generator=generator)


def _differentiable(output, noise):
    """The same sample by autograd, in the dtype of `output`, from the definition."""
    mean, raw = output.chunk(2, -1)
    log_std = raw.clamp(LOG_STD_MIN, LOG_STD_MAX)
    base = Normal(mean, log_std.exp())
    pre_tanh = mean + log_std.exp() * noise
    action = pre_tanh.tanh()
    transform = TanhTransform()
    log_prob = base.log_prob(pre_tanh) - transform.log_abs_det_jacobian(pre_tanh, action)
    return action, log_prob.sum(-1)


def test_log_prob_equals_a_transformed_distribution():
    output, noise = _output(spread=0.5)
    drawn = tanh_gaussian.sample(output, noise)
    mean, log_std = output.double().chunk(2, -1)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    action = (mean + log_std.exp() * noise.double()).tanh()
    expected = squashed.log_prob(action).sum(-1)
    torch.testing.assert_close(drawn.action.double(), action, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(drawn.log_prob.double(), expected, rtol=1e-5, atol=1e-5)


def test_log_prob_of_a_hand_computed_sample():
    # mean 0, std 1, noise 0: u = 0, a = 0, log N(0) = -log(2 pi) / 2 = -0.918939, log(1 - a^2) = 0
    drawn = tanh_gaussian.sample(torch.zeros(1, 2), torch.zeros(1, 1))
    assert drawn.action.item() == 0.0
    assert drawn.log_prob.item() == pytest.approx(-0.9189385)


def test_log_prob_stays_finite_where_tanh_saturates():
    output = torch.tensor([[40.0, 0.0], [-40.0, 0.0]])
    drawn = tanh_gaussian.sample(output, torch.zeros(2, 1))
    # log(1 - tanh(u)^2) -> 2 (log 2 - |u|), so log pi = -0.918939 - 2 (0.693147 - 40) = 77.694767
    torch.testing.assert_close(drawn.log_prob, torch.full((2,), 77.694767), rtol=1e-6, atol=0)


def test_gradient_equals_autograd_also_where_log_std_is_clamped():
    output, noise = _output()
    output[0, 3:] = torch.tensor([LOG_STD_MAX + 1, LOG_STD_MIN - 1, LOG_STD_MAX])
    output[1, 3:] = torch.tensor([5.0, -30.0, 0.0])
    generator = torch.Generator().manual_seed(1)
    grad_action = torch.randn(64, 3, generator=generator)
    grad_log_prob = torch.randn(64, generator=generator)

    drawn = tanh_gaussian.sample(output, noise)
    found = tanh_gaussian.sample_backward(drawn, grad_action, grad_log_prob)

    leaf = output.double().requires_grad_()
    action, log_prob = _differentiable(leaf, noise.double())
    ((action * grad_action).sum() + (log_prob * grad_log_prob).sum()).backward()
    torch.testing.assert_close(drawn.log_prob.double(), log_prob.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.double(), leaf.grad, rtol=2e-4, atol=2e-5)
    assert (found[0, [3, 4]] == 0).all()  # out of bounds
    assert found[0, 5] != 0  # on the bound


def test_mode_is_the_squashed_mean():
    output, _ = _output()
    assert torch.equal(tanh_gaussian.mode(output), output[:, :3].tanh())


def test_draws_follow_the_distribution_and_the_generator():
    mean, log_std = 0.3, -1.0
    output = torch.tensor([[mean, log_std]]).expand(200_000, 2).contiguous()
    actions = tanh_gaussian.draw(output, torch.Generator().manual_seed(5))
    pre_tanh = actions.atanh()
    # 200 000 draws: the mean's standard error is 0.368 / 447 = 0.0008
    assert float(pre_tanh.mean()) == pytest.approx(mean, abs=0.004)
    assert float(pre_tanh.std()) == pytest.approx(torch.tensor(log_std).exp().item(), rel=0.01)
    again = tanh_gaussian.draw(output, torch.Generator().manual_seed(5))
    other = tanh_gaussian.draw(output, torch.Generator().manual_seed(6))
    assert torch.equal(actions, again)
    assert not torch.equal(actions, other)


def test_draw_clamps_the_log_std():
    output = torch.tensor([[0.0, -1e9]])
    assert tanh_gaussian.draw(output, torch.Generator().manual_seed(0)).abs().item() < 1e-7
