"""What is dropped, how often, and what the rest is scaled by."""

import pytest
import torch

from leray.algorithms.networks.dropout import Dropout, dropout

COUNT = 400_003  # no multiple of what one random draw serves


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale(p):
    torch.manual_seed(0)
    y = dropout(torch.ones(COUNT), p)
    kept = y != 0
    # a binomial's standard deviation is sqrt(p (1 - p) / n) <= 0.0008
    assert (~kept).float().mean().item() == pytest.approx(p, abs=0.004)
    assert y[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=2e-4)
    for lane in range(4):
        assert (~kept[lane::4]).float().mean().item() == pytest.approx(p, abs=0.008)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = dropout(torch.ones(COUNT), 0.5) == 0
    for shift in (1, 2, 3, 4, 5):
        both = (dropped[shift:] & dropped[:-shift]).float().mean().item()
        assert both == pytest.approx(0.25, abs=0.005)


def test_gradients_pass_where_values_do():
    x = torch.randn(7, 11, 13, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())
    assert (x.grad == 0).any()


def test_the_seed_decides():
    x = torch.ones(5, 9)
    torch.manual_seed(4)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(4)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_the_module_drops_in_training_only():
    module, x = Dropout(0.5), torch.ones(100)
    assert (module(x) == 0).any()
    assert module.eval()(x) is x
    assert module.state_dict() == {}


def test_edges():
    x = torch.ones(3, 0, 2)
    assert dropout(x, 0.5).shape == (3, 0, 2)
    x = torch.randn(6)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(torch.get_rng_state(), before)
    assert dropout(x.to(torch.bfloat16), 0.5).dtype == torch.bfloat16
    assert torch.isfinite(dropout(torch.ones(1000), 0.9999999)).all()
