"""Ensembles of multi-layer perceptrons with flat parameters and hand-written gradients.

All members of an ensemble are evaluated by one batched matrix product per layer, their parameters
lie in one contiguous block (so that an optimiser step, a target update and a weight broadcast are
one operation each), and the backward pass computes only the gradients that are asked for.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-5


class LayerViews(NamedTuple):
    """One layer's parameters as views into a flat block; E members, I inputs, O outputs."""

    weight: Tensor
    """Shape [E, I, O]."""
    bias: Tensor
    """Shape [E, 1, O]."""
    scale: Tensor | None
    """Layer-norm scale, shape [E, 1, O]; None without layer norm and in the last layer."""
    shift: Tensor | None
    """Layer-norm shift, shape [E, 1, O]."""


@dataclass(frozen=True, slots=True)
class MLPShape:
    """How an ensemble of MLPs is laid out in a flat block of parameters."""

    num_members: int
    sizes: tuple[int, ...]
    """Widths from the input to the output, for example (17, 256, 256, 6)."""
    layer_norm: bool = False

    @property
    def num_layers(self) -> int:
        """Number of linear layers."""
        return len(self.sizes) - 1

    @property
    def num_parameters(self) -> int:
        """Length of the flat block."""
        return sum(torch.Size(shape).numel() for _, shape in self.entries())

    def entries(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Return name and shape of each tensor in the block, in order."""
        entries = []
        members = self.num_members
        for layer in range(self.num_layers):
            inputs, outputs = self.sizes[layer], self.sizes[layer + 1]
            entries.append((f"layers.{layer}.weight", (members, inputs, outputs)))
            entries.append((f"layers.{layer}.bias", (members, 1, outputs)))
            if self.layer_norm and layer < self.num_layers - 1:
                entries.append((f"layers.{layer}.norm.scale", (members, 1, outputs)))
                entries.append((f"layers.{layer}.norm.shift", (members, 1, outputs)))
        return entries

    def named_views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the block's tensors by name, as views.

        Args:
            flat: block of shape [num_parameters].
        """
        views, offset = {}, 0
        for name, shape in self.entries():
            length = torch.Size(shape).numel()
            views[name] = flat[offset : offset + length].view(shape)
            offset += length
        return views

    def layer_views(self, flat: Tensor) -> list[LayerViews]:
        """Return the block's tensors layer by layer, as views."""
        views = self.named_views(flat)
        return [
            LayerViews(
                views[f"layers.{layer}.weight"],
                views[f"layers.{layer}.bias"],
                views.get(f"layers.{layer}.norm.scale"),
                views.get(f"layers.{layer}.norm.shift"),
            )
            for layer in range(self.num_layers)
        ]


class MLPParameters:
    """A flat float32 block of parameters, its views, and its copy in the compute precision.

    After changing `flat`, call `refresh` so that the compute copy follows.
    """

    def __init__(self, shape: MLPShape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.flat = torch.zeros(shape.num_parameters, device=device)
        self.compute = self.flat if dtype == torch.float32 else self.flat.to(dtype)
        self.layers = shape.layer_views(self.compute)
        self.layers[-1] = shape.layer_views(self.flat)[-1]  # outputs are always float32

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw weights and biases from U(-1/sqrt(inputs), 1/sqrt(inputs)), as `nn.Linear` does."""
        for layer in self.shape.layer_views(self.flat):
            bound = layer.weight.shape[1] ** -0.5
            for tensor in (layer.weight, layer.bias):
                values = torch.rand(tensor.shape, generator=generator) * (2 * bound) - bound
                tensor.copy_(values)
            if layer.scale is not None and layer.shift is not None:
                layer.scale.fill_(1)
                layer.shift.zero_()
        self.refresh()

    def refresh(self) -> None:
        """Bring the compute copy up to date with `flat`."""
        if self.compute is not self.flat:
            self.compute.copy_(self.flat)

    def named(self) -> dict[str, Tensor]:
        """Return the float32 tensors by name, as views."""
        return self.shape.named_views(self.flat)


class Tape:
    """Activations of one forward pass, kept for the backward pass in buffers that are reused."""

    def __init__(self, parameters: MLPParameters, batch_size: int) -> None:
        shape, dtype, device = parameters.shape, parameters.compute.dtype, parameters.flat.device
        members = shape.num_members

        def buffers(last: torch.dtype) -> list[Tensor]:
            types = [dtype] * (shape.num_layers - 1) + [last]
            return [
                torch.empty(members, batch_size, width, dtype=kind, device=device)
                for width, kind in zip(shape.sizes[1:], types, strict=True)
            ]

        self.input = torch.empty(0)
        self.outputs = buffers(torch.float32)
        self.statistics: list[tuple[Tensor, Tensor, Tensor]] = []
        """Per normalised layer: normalised values, mean, reciprocal standard deviation."""


@torch.no_grad()
def forward(parameters: MLPParameters, x: Tensor, tape: Tape) -> Tensor:
    """Evaluate every member of the ensemble.

    Args:
        parameters: weights of E members.
        x: inputs, shape [B, I], shared by all members.
        tape: buffers for B samples; holds what `backward` needs until the next forward pass.

    Returns:
        Outputs, float32, shape [E, B, O]; a buffer of the tape.
    """
    tape.input = x.to(parameters.compute.dtype)
    tape.statistics.clear()
    hidden = tape.input.unsqueeze(0).expand(parameters.shape.num_members, -1, -1)
    last = len(parameters.layers) - 1
    for index, (layer, output) in enumerate(zip(parameters.layers, tape.outputs, strict=True)):
        if index == last:
            hidden = hidden.to(torch.float32)
        _linear(layer, hidden, output)
        if layer.scale is not None and layer.shift is not None:
            width = [output.shape[-1]]
            normed, mean, rstd = torch.native_layer_norm(output, width, None, None, LAYER_NORM_EPS)
            tape.statistics.append((normed, mean, rstd))
            pre_activation = torch.addcmul(layer.shift, normed, layer.scale)
            torch.clamp_min(pre_activation, 0, out=output)
        elif index != last:
            output.relu_()
        hidden = output
    return tape.outputs[-1]


@torch.no_grad()
def backward(
    parameters: MLPParameters,
    tape: Tape,
    grad_output: Tensor,
    *,
    grad_parameters: list[LayerViews] | None,
    need_input: bool,
) -> Tensor | None:
    """Propagate a gradient back through the last forward pass recorded on the tape.

    Args:
        parameters: the weights that the forward pass used.
        tape: the tape of that pass.
        grad_output: gradient with respect to the outputs, float32, shape [E, B, O].
        grad_parameters: views of a flat block to overwrite with the parameters' gradient, or None
            to leave them out.
        need_input: whether to compute the gradient with respect to the inputs.

    Returns:
        The gradient with respect to `x`, summed over members, float32, shape [B, I], or None.
    """
    grad = grad_output
    for index in range(len(parameters.layers) - 1, -1, -1):
        layer = parameters.layers[index]
        if index < len(parameters.layers) - 1:
            grad = torch.ops.aten.threshold_backward(grad, tape.outputs[index], 0)
        if layer.scale is not None:
            grad = _norm_backward(layer, tape, index, grad, grad_parameters)
        if grad_parameters is not None:
            inputs = (
                tape.outputs[index - 1]
                if index
                else tape.input.expand(parameters.shape.num_members, -1, -1)
            )
            _accumulate(inputs, grad, grad_parameters[index])
        if index == 0 and not need_input:
            return None
        if grad.shape[-1] == 1:
            grad = grad * layer.weight.transpose(1, 2)
        else:
            grad = torch.bmm(grad, layer.weight.transpose(1, 2))
        if index == len(parameters.layers) - 1:
            grad = grad.to(parameters.compute.dtype)
    return grad.sum(0, dtype=torch.float32)


def _linear(layer: LayerViews, inputs: Tensor, output: Tensor) -> None:
    """Evaluate a linear layer; a single output is a dot product, faster than a matrix product."""
    if output.shape[-1] == 1:
        products = torch.linalg.vecdot(inputs, layer.weight.transpose(1, 2)).unsqueeze(-1)
        torch.add(products, layer.bias, out=output)
    else:
        torch.baddbmm(layer.bias, inputs, layer.weight, out=output)


def _accumulate(inputs: Tensor, grad: Tensor, out: LayerViews) -> None:
    """Write the gradient of a linear layer's weight and bias."""
    torch.sum(grad, 1, keepdim=True, dtype=torch.float32, out=out.bias)
    if grad.dtype == torch.float32:
        inputs = inputs.to(torch.float32)
    if grad.shape[-1] == 1:
        torch.sum(inputs * grad, 1, out=out.weight.squeeze(-1))
    elif grad.dtype == torch.float32:
        torch.bmm(inputs.transpose(1, 2), grad, out=out.weight)
    else:
        out.weight.copy_(torch.bmm(inputs.transpose(1, 2), grad))


def _norm_backward(
    layer: LayerViews,
    tape: Tape,
    index: int,
    grad: Tensor,
    grad_parameters: list[LayerViews] | None,
) -> Tensor:
    """Propagate through layer norm: `rstd * (g - mean(g) - n * mean(g * n))`, g = grad * scale."""
    normed, _, rstd = tape.statistics[index]
    assert layer.scale is not None
    if grad_parameters is not None:
        out = grad_parameters[index]
        assert out.scale is not None
        assert out.shift is not None
        torch.sum(grad * normed, 1, keepdim=True, dtype=torch.float32, out=out.scale)
        torch.sum(grad, 1, keepdim=True, dtype=torch.float32, out=out.shift)
    scaled = grad * layer.scale
    mean = scaled.mean(-1, keepdim=True)
    correlation = (scaled * normed).mean(-1, keepdim=True)
    return (scaled.sub_(mean)).addcmul_(normed, correlation, value=-1).mul_(rstd.to(grad.dtype))
