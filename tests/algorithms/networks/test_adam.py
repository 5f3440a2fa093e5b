"""The flat optimiser against `torch.optim.Adam`."""

import pytest
import torch

from leray.algorithms.networks.adam import FlatAdam


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
def test_steps_equal_torch_adam(max_norm):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(101, generator=generator)
    ours = FlatAdam(start.clone(), learning_rate=3e-3)
    reference = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([reference], lr=3e-3)
    for _ in range(20):
        grad = torch.randn(101, generator=generator)
        ours.grad.copy_(grad)
        reference.grad = grad.clone()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([reference], max_norm)
        ours.step(max_norm)
        adam.step()
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-6, atol=0)
        torch.testing.assert_close(ours.parameters, reference.detach(), rtol=1e-6, atol=1e-7)


def test_clipping_scales_the_whole_gradient():
    adam = FlatAdam(torch.zeros(2), learning_rate=1.0)
    adam.grad.copy_(torch.tensor([3.0, 4.0]))  # norm 5
    adam.step(max_norm=1.0)
    torch.testing.assert_close(adam.grad, torch.tensor([0.6, 0.8]), rtol=1e-6, atol=0)


def test_the_first_step_moves_by_the_learning_rate():
    adam = FlatAdam(torch.tensor([1.0, 1.0, 1.0]), learning_rate=0.1)
    adam.grad.copy_(torch.tensor([5.0, -0.02, 0.0]))
    adam.step()
    # after one step both moments equal g and g^2: the step is lr * g / |g|
    torch.testing.assert_close(adam.parameters, torch.tensor([0.9, 1.1, 1.0]), rtol=1e-5, atol=0)


def test_a_restored_optimiser_goes_on_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(10, 17, generator=generator)
    whole = FlatAdam(torch.ones(17), learning_rate=1e-2)
    for index in range(5):
        whole.grad.copy_(grads[index])
        whole.step()
    state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    resumed = FlatAdam(whole.parameters.clone(), learning_rate=1e-2)
    resumed.load_state_dict(state)
    for index in range(5, 10):
        for adam in (whole, resumed):
            adam.grad.copy_(grads[index])
            adam.step(1.0)
    assert torch.equal(whole.parameters, resumed.parameters)
