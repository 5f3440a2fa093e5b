"""The batched MLP against an ordinary autograd network, number for number."""

import pytest
import torch
from torch import nn

from leray.algorithms.networks import mlp
from leray.algorithms.networks.mlp import MLPParameters, MLPShape, Tape

CPU = torch.device("cpu")
BATCH = 7


def _reference(parameters: MLPParameters) -> list[nn.Sequential]:
    """Build one `nn.Sequential` per member from the named views, in float64."""
    named = {name: tensor.double() for name, tensor in parameters.named().items()}
    shape, members = parameters.shape, []
    for member in range(shape.num_members):
        layers: list[nn.Module] = []
        for index in range(shape.num_layers):
            linear = nn.Linear(shape.sizes[index], shape.sizes[index + 1]).double()
            linear.weight.data = named[f"layers.{index}.weight"][member].T.clone()
            linear.bias.data = named[f"layers.{index}.bias"][member, 0].clone()
            layers.append(linear)
            if index < shape.num_layers - 1:
                if shape.layer_norm:
                    norm = nn.LayerNorm(shape.sizes[index + 1]).double()
                    norm.weight.data = named[f"layers.{index}.norm.scale"][member, 0].clone()
                    norm.bias.data = named[f"layers.{index}.norm.shift"][member, 0].clone()
                    layers.append(norm)
                layers.append(nn.ReLU())
        members.append(nn.Sequential(*layers))
    return members


def _reference_grads(shape: MLPShape, members: list[nn.Sequential]) -> torch.Tensor:
    """Return the members' gradients in the order of the flat block."""
    flat = torch.zeros(shape.num_parameters, dtype=torch.float64)
    views = shape.named_views(flat)
    for number, network in enumerate(members):
        index = -1
        for module in network:
            if isinstance(module, nn.Linear):
                index += 1
                views[f"layers.{index}.weight"][number] = module.weight.grad.T
                views[f"layers.{index}.bias"][number, 0] = module.bias.grad
            elif isinstance(module, nn.LayerNorm):
                views[f"layers.{index}.norm.scale"][number, 0] = module.weight.grad
                views[f"layers.{index}.norm.shift"][number, 0] = module.bias.grad
    return flat


def _make(shape: MLPShape, dtype: torch.dtype) -> MLPParameters:
    generator = torch.Generator().manual_seed(3)
    parameters = MLPParameters(shape, CPU, dtype)
    parameters.reset(generator)
    if shape.layer_norm:  # away from the scale 1 and shift 0 they start with
        for name, tensor in parameters.named().items():
            if "norm" in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
        parameters.refresh()
    return parameters


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.detach()
    return float((found.double() - expected).norm() / expected.norm())


CASES = [
    pytest.param(members, sizes, norm, id=f"{members}x{'-'.join(map(str, sizes))}-norm={norm}")
    for members in (1, 10)
    for sizes in ((5, 16, 12, 1), (5, 16, 12, 6), (5, 1))
    for norm in (False, True)
]
PRECISIONS = [
    pytest.param(torch.float32, 2e-6, id="float32"),
    # bfloat16 rounds by up to 2^-9 = 0.2 % each time, and a few units flip at the ReLU's corner
    pytest.param(torch.bfloat16, 8e-2, id="bfloat16"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(("members", "sizes", "layer_norm"), CASES)
def test_forward_and_backward_equal_autograd(members, sizes, layer_norm, dtype, tolerance):
    shape = MLPShape(members, sizes, layer_norm)
    parameters = _make(shape, dtype)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(BATCH, sizes[0], generator=generator)
    grad_output = torch.randn(members, BATCH, sizes[-1], generator=generator)
    tape = Tape(parameters, BATCH)
    grads = torch.full((shape.num_parameters,), 7.0)  # to be overwritten, not added to

    output = mlp.forward(parameters, x, tape).clone()
    grad_x = mlp.backward(
        parameters,
        tape,
        grad_output,
        grad_parameters=shape.layer_views(grads),
        need_input=True,
    )

    references = _reference(parameters)
    x64 = x.double().requires_grad_()
    expected = torch.stack([network(x64) for network in references])
    (expected * grad_output.double()).sum().backward()
    assert output.dtype == grad_x.dtype == torch.float32
    assert output.shape == (members, BATCH, sizes[-1])
    assert grad_x.shape == x.shape
    assert _relative(output, expected) < tolerance
    assert _relative(grad_x, x64.grad) < tolerance
    assert _relative(grads, _reference_grads(shape, references)) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hidden_layer_of_one_unit(dtype):
    shape = MLPShape(2, (3, 1, 2))
    parameters = MLPParameters(shape, CPU, dtype)
    parameters.flat.fill_(0.5)
    parameters.refresh()
    tape, grads = Tape(parameters, 4), torch.zeros(shape.num_parameters)
    # hidden = relu(3 * 0.5 + 0.5) = 2; each output = 2 * 0.5 + 0.5 = 1.5; all exact in bfloat16
    assert torch.equal(mlp.forward(parameters, torch.ones(4, 3), tape), torch.full((2, 4, 2), 1.5))
    grad_x = mlp.backward(
        parameters,
        tape,
        torch.ones(2, 4, 2),
        grad_parameters=shape.layer_views(grads),
        need_input=True,
    )
    # d/dhidden = 2 outputs * 0.5 = 1, d/dx = 1 * 0.5 per member, summed over 2 members
    assert torch.equal(grad_x, torch.ones(4, 3))
    # first weights: sum over 4 samples of x * 1
    assert torch.equal(shape.named_views(grads)["layers.0.weight"], torch.full((2, 3, 1), 4.0))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_leaving_out_parameter_gradients_changes_nothing_else(layer_norm):
    shape = MLPShape(3, (4, 8, 8, 1), layer_norm)
    parameters = _make(shape, torch.float32)
    tape, x = Tape(parameters, BATCH), torch.randn(BATCH, 4)
    grad_output = torch.randn(3, BATCH, 1)
    grads = torch.zeros(shape.num_parameters)
    mlp.forward(parameters, x, tape)
    full = mlp.backward(
        parameters, tape, grad_output, grad_parameters=shape.layer_views(grads), need_input=True
    )
    alone = mlp.backward(parameters, tape, grad_output, grad_parameters=None, need_input=True)
    assert torch.equal(full, alone)

    again = torch.zeros(shape.num_parameters)
    none = mlp.backward(
        parameters, tape, grad_output, grad_parameters=shape.layer_views(again), need_input=False
    )
    assert none is None
    assert torch.equal(grads, again)


def test_a_tape_serves_pass_after_pass():
    shape = MLPShape(2, (4, 8, 3), layer_norm=True)
    parameters = _make(shape, torch.float32)
    tape = Tape(parameters, BATCH)
    first, second = torch.randn(BATCH, 4), torch.randn(BATCH, 4)
    before = mlp.forward(parameters, first, tape).clone()
    mlp.forward(parameters, second, tape)
    assert torch.equal(mlp.forward(parameters, first, tape), before)


def test_the_flat_layout_is_stable():
    # checkpoints and broadcasts rely on this order: weight, bias, norm scale, norm shift, per layer
    shape = MLPShape(2, (3, 4, 1), layer_norm=True)
    assert shape.entries() == [
        ("layers.0.weight", (2, 3, 4)),
        ("layers.0.bias", (2, 1, 4)),
        ("layers.0.norm.scale", (2, 1, 4)),
        ("layers.0.norm.shift", (2, 1, 4)),
        ("layers.1.weight", (2, 4, 1)),
        ("layers.1.bias", (2, 1, 1)),
    ]
    assert shape.num_parameters == 24 + 8 + 8 + 8 + 8 + 2
    views = shape.named_views(torch.arange(58.0))
    assert views["layers.0.weight"][1, 0].tolist() == [12, 13, 14, 15]
    assert views["layers.0.norm.shift"].flatten().tolist() == [40, 41, 42, 43, 44, 45, 46, 47]
    assert views["layers.1.bias"].flatten().tolist() == [56, 57]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_named_views_write_through_to_the_block(dtype):
    source = _make(MLPShape(2, (3, 4, 2), layer_norm=True), dtype)
    target = MLPParameters(source.shape, CPU, dtype)
    for name, tensor in target.named().items():
        tensor.copy_(source.named()[name])
    target.refresh()
    assert torch.equal(target.flat, source.flat)
    assert torch.equal(target.compute, source.compute)


def test_reset_draws_from_the_bounds_of_nn_linear_and_from_the_generator_alone():
    shape = MLPShape(4, (100, 64, 1), layer_norm=True)
    parameters = _make_fresh(shape, seed=1)
    named = parameters.named()
    for index, inputs in ((0, 100), (1, 64)):
        for name in ("weight", "bias"):
            values = named[f"layers.{index}.{name}"]
            assert values.abs().max() <= inputs**-0.5
    # the standard deviation of U(-0.1, 0.1) is 0.1 / sqrt(3); 25600 draws: 0.5 % is over 1 sigma
    assert float(named["layers.0.weight"].std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert (named["layers.0.norm.scale"] == 1).all()
    assert (named["layers.0.norm.shift"] == 0).all()
    assert torch.equal(parameters.flat, _make_fresh(shape, seed=1).flat)
    assert not torch.equal(parameters.flat, _make_fresh(shape, seed=2).flat)


def _make_fresh(shape: MLPShape, *, seed: int) -> MLPParameters:
    parameters = MLPParameters(shape, CPU, torch.float32)
    parameters.reset(torch.Generator().manual_seed(seed))
    return parameters
