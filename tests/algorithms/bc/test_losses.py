"""Behaviour cloning's losses: worked out by hand, and against torch's distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from leray.algorithms.bc import losses
from leray.algorithms.networks import tanh_gaussian


def test_squared_error_by_hand():
    # tanh(log(3) / 2) = 1/2
    output = torch.tensor([[math.log(3) / 2, 0.0, 7.0, 7.0], [0.0, 0.0, -7.0, 7.0]])
    action = torch.tensor([[1.0, 0.5], [0.0, -1.0]])
    # (1/4 + 1/4 + 0 + 1) / 4; the log-stds do not matter
    assert losses.squared_error(output, action).item() == pytest.approx(0.375)


def test_squared_error_is_the_imitation_that_sac_has_too():
    from leray.algorithms.sac.losses import imitation_grad

    output = torch.randn(8, 6, requires_grad=True)
    action = torch.rand(8, 3) * 2 - 1
    losses.squared_error(output, action).backward()
    # SAC sums over the three dimensions where this takes their mean
    expected = imitation_grad(output.detach()[:, :3], action, torch.ones(8), 1.0) / 3
    torch.testing.assert_close(output.grad[:, :3], expected)
    assert (output.grad[:, 3:] == 0).all()


def test_negative_log_likelihood_by_hand():
    # u = 1 two standard deviations of 1/2 above the mean 0: 2 + log 1/2 + log sqrt(2 pi), and the
    # density is divided by 1 - tanh(1)^2 = 0.419974
    output = torch.tensor([[0.0, math.log(0.5)]])
    found = losses.negative_log_likelihood(output, torch.tensor([[math.tanh(1.0)]]), 0.0)
    assert found.item() == pytest.approx(2 - 0.693147 + 0.918939 - 0.867562, abs=1e-5)
    # dimensions add up, samples are averaged: a second sample right at its mean of 0
    output = torch.tensor([[0.0, 0.0, math.log(0.5), 0.0], [0.0, 0.0, 0.0, 0.0]])
    action = torch.tensor([[math.tanh(1.0), 0.0], [0.0, 0.0]])
    found = losses.negative_log_likelihood(output, action, 0.0)
    assert found.item() == pytest.approx((1.358230 + 0.918939 + 2 * 0.918939) / 2, abs=1e-5)


def test_negative_log_likelihood_equals_that_of_torchs_distributions():
    generator = torch.Generator().manual_seed(1)
    output = torch.randn(64, 6, generator=generator) * 0.5
    action = torch.rand(64, 3, generator=generator) * 1.9 - 0.95
    mean, log_std = output.chunk(2, -1)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    expected = -reference.log_prob(action).sum(-1).mean()
    found = losses.negative_log_likelihood(output, action, 0.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_negative_log_likelihood_is_that_of_the_samples_sac_draws():
    output = torch.randn(64, 6, generator=torch.Generator().manual_seed(2)) * 0.5
    drawn = tanh_gaussian.sample(output, torch.randn(64, 3))
    inside = (drawn.action.abs() < losses.BOUND).all(-1)
    assert inside.sum() > 32
    found = losses.negative_log_likelihood(output[inside], drawn.action[inside], 0.0)
    torch.testing.assert_close(found, -drawn.log_prob[inside].mean(), rtol=1e-4, atol=1e-4)


def test_actions_at_their_bounds_count_as_just_inside():
    output = torch.zeros(1, 2, requires_grad=True)
    at, inside = (
        losses.negative_log_likelihood(output, torch.tensor([[value]]), 0.0)
        for value in (1.0, losses.BOUND)
    )
    assert at.isfinite()
    assert at == inside
    at.backward()
    # d/dmean = -(u - mean) / std^2, and u is 3.8
    assert output.grad[0, 0].item() == pytest.approx(-3.8002, abs=1e-3)


def test_the_spread_is_the_best_std_where_the_mean_is_right():
    action = torch.tensor([[0.3]])
    mean = torch.atanh(action)

    def loss(std):
        output = torch.cat([mean, torch.full((1, 1), math.log(std))], -1)
        return losses.negative_log_likelihood(output, action, 0.1).item()

    assert loss(0.1) < min(loss(0.09), loss(0.11))
    # by hand: 1/2 (0.1 / 0.2)^2 + log 0.2 + log sqrt(2 pi) + log(1 - 0.09)
    expected = 0.125 + math.log(0.2) + 0.918939 + math.log(0.91)
    assert loss(0.2) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("log_std", [-30.0, 5.0])
def test_log_stds_have_the_bounds_of_sac(log_std):
    output = torch.tensor([[0.0, log_std]], requires_grad=True)
    losses.negative_log_likelihood(output, torch.zeros(1, 1), 0.0).backward()
    assert output.grad[0, 1] == 0
