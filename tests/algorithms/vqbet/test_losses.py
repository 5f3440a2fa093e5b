import pytest
import torch

from leray.algorithms.vqbet.losses import focal_loss, quantization_loss


def test_focal_loss_by_hand():
    logits = torch.tensor([[torch.tensor(3.0).log(), 0.0], [torch.tensor(3.0).log(), 0.0]])
    # p = 3/4: 0.25^2 * 0.287682 = 0.0179801; p = 1/4: 0.75^2 * 1.386294 = 0.7797906
    loss = focal_loss(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((0.0179801 + 0.7797906) / 2, abs=1e-6)


def test_focal_loss_is_near_zero_where_the_code_is_certain():
    assert focal_loss(torch.tensor([[20.0, 0.0]]), torch.tensor([0])).item() < 1e-12


def test_quantization_loss_weighs_commitment_five_times():
    loss = quantization_loss(torch.tensor(0.25), torch.tensor(0.5))
    assert loss.item() == pytest.approx(2.75)
