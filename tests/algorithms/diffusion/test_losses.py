"""The loss of Diffusion Policy, by hand."""

import pytest
import torch

from leray.algorithms.diffusion.losses import denoising_loss

PREDICTION = torch.tensor([[[1.0, 2.0], [0.0, -1.0]], [[3.0, 0.0], [1.0, 1.0]]])
TARGET = torch.tensor([[[0.0, 2.0], [2.0, -1.0]], [[3.0, 1.0], [0.0, 4.0]]])
# squared errors: [[1, 0], [4, 0]], [[0, 1], [1, 9]]


def test_the_mean_of_all_squared_errors():
    assert float(denoising_loss(PREDICTION, TARGET)) == 16 / 8


def test_padded_actions_are_no_errors_but_count():
    is_pad = torch.tensor([[False, True], [False, True]])
    assert float(denoising_loss(PREDICTION, TARGET, is_pad)) == (1 + 0 + 0 + 1) / 8
    assert float(denoising_loss(PREDICTION, TARGET, torch.ones(2, 2, dtype=torch.bool))) == 0


def test_nothing_is_learnt_from_padded_actions():
    prediction = PREDICTION.clone().requires_grad_()
    denoising_loss(prediction, TARGET, torch.tensor([[False, True], [False, False]])).backward()
    # d/dp of (p - t)^2 / 8 is (p - t) / 4
    expected = [[[0.25, 0.0], [0.0, 0.0]], [[0.0, -0.25], [0.25, -0.75]]]
    assert prediction.grad.tolist() == expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 16, 7)])
def test_no_padding_is_no_mask(shape):
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, *shape, generator=generator)
    none = torch.zeros(shape[:2], dtype=torch.bool)
    loss = denoising_loss(prediction, target)
    assert float(denoising_loss(prediction, target, none)) == pytest.approx(float(loss))
