"""Convolutions beside torch's own, number for number."""

import pytest
import torch
from torch import nn

from leray.algorithms.diffusion import convolution
from leray.algorithms.diffusion.convolution import Conv1d, ConvTranspose1d

LAYERS = [
    pytest.param(Conv1d, nn.Conv1d, (5, 7, 5, 1, 2), id="same length"),
    pytest.param(Conv1d, nn.Conv1d, (5, 7, 3, 2, 1), id="half"),
    pytest.param(Conv1d, nn.Conv1d, (5, 7, 1), id="pointwise"),
    pytest.param(ConvTranspose1d, nn.ConvTranspose1d, (5, 7, 4, 2, 1), id="double"),
]


def _pair(own, torchs, shape, dtype):
    torch.manual_seed(0)
    ours, theirs = own(*shape).to(dtype), torchs(*shape).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def _outcome(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    return y, x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("own", "torchs", "shape"), LAYERS)
def test_outputs_and_gradients_equal_torchs(monkeypatch, own, torchs, shape, rows):
    monkeypatch.setattr(convolution, "_LARGE", 1)
    ours, theirs = _pair(own, torchs, shape, torch.float64)
    x = torch.randn(rows, 5, 8, dtype=torch.float64)
    found = _outcome(ours, x)
    assert "_Convolution" in type(found[0].grad_fn).__name__
    for value, expected in zip(found, _outcome(theirs, x), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("own", "torchs", "shape"), LAYERS)
def test_autocast_computes_in_bfloat16_and_learns_in_float32(monkeypatch, own, torchs, shape):
    monkeypatch.setattr(convolution, "_LARGE", 1)
    ours, theirs = _pair(own, torchs, shape, torch.float32)
    x = torch.randn(3, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = _outcome(ours, x), _outcome(theirs, x)
    assert found[0].dtype == expected[0].dtype == torch.bfloat16
    assert [value.dtype for value in found[1:]] == [torch.float32] * 3
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=2e-2, atol=5e-2)


def test_what_does_not_learn_gets_no_gradient(monkeypatch):
    monkeypatch.setattr(convolution, "_LARGE", 1)
    layer = Conv1d(5, 7, 3, padding=1)
    layer.bias.requires_grad_(False)
    layer(torch.randn(2, 5, 8)).sum().backward()  # nor do the inputs
    assert layer.bias.grad is None
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert layer(torch.randn(2, 5, 8)).grad_fn is None


def test_small_layers_are_torchs():
    y = Conv1d(5, 7, 3, padding=1)(torch.randn(2, 5, 8))
    assert "ConvolutionBackward" in type(y.grad_fn).__name__
