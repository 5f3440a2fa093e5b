"""ACT's loss by hand."""

import math

import pytest
import torch

from leray.algorithms.act.losses import divergence, reconstruction_loss


def test_padded_steps_have_no_error_but_count():
    predicted = torch.tensor([[[1.0, 2.0], [5.0, 5.0]], [[0.0, -1.0], [4.0, 0.0]]])
    actions = torch.tensor([[[0.0, 4.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 2.0]]])
    is_pad = torch.tensor([[False, True], [False, False]])
    # errors 1, 2 | padded | 0, 2 | 3, 2, over all 8 elements
    loss = reconstruction_loss(predicted, actions, is_pad)
    assert loss.item() == pytest.approx(10 / 8)


def test_a_padded_step_passes_no_gradient_even_where_it_is_no_number():
    predicted = torch.tensor([[[1.0], [2.0]]], requires_grad=True)
    actions = torch.tensor([[[0.0], [math.nan]]])
    reconstruction_loss(predicted, actions, torch.tensor([[False, True]])).backward()
    assert predicted.grad.flatten().tolist() == [0.5, 0.0]


def test_divergence_by_hand():
    mean = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0], [math.log(4.0), 0.0]])
    # per element: 0, 1/2 | -1/2 (1 + ln 4 - 4), 0; summed, then averaged over 2 samples
    expected = (0.5 - 0.5 * (1 + math.log(4.0) - 4.0)) / 2
    assert divergence(mean, log_variance).item() == pytest.approx(expected)


def test_divergence_of_the_prior_is_zero():
    assert divergence(torch.zeros(3, 5), torch.zeros(3, 5)).item() == 0.0


def test_divergence_is_torchs():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, prior).sum(-1).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)
