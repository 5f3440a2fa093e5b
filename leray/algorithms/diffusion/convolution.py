"""Convolutions over time that learn fast on CPUs, too, where their weights are large."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGE = 2**20
"""Weights of a layer from which on the product below is faster, by measurement: 2 to 5 times for
short sequences."""


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` without dilation and groups."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, T'] of [B, inputs, T]."""
        if not _learns_by_product(x, self.weight):
            return super().forward(x)
        return _convolve(x, self, transposed=False)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` without dilation and groups."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return [B, outputs, T'] of [B, inputs, T]."""
        if output_size is not None or not _learns_by_product(x, self.weight):
            return super().forward(x, output_size)
        return _convolve(x, self, transposed=True)


def _learns_by_product(x: Tensor, weight: Tensor) -> bool:
    learns = torch.is_grad_enabled() and weight.requires_grad
    return learns and x.device.type == "cpu" and weight.numel() >= _LARGE


def _convolve(x: Tensor, layer: nn.Conv1d | nn.ConvTranspose1d, *, transposed: bool) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled("cpu"):  # which does not reach into the function
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    stride, padding = layer.stride[0], int(layer.padding[0])
    function: Any = _Convolution  # torch leaves it untyped
    y: Tensor = function.apply(x, weight, bias, stride, padding, transposed)
    return y


class _Convolution(torch.autograd.Function):
    """A convolution, maybe transposed, whose weights get their gradient from one matrix product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *place: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.place = place
        stride, padding, transposed = place
        convolve = functional.conv_transpose1d if transposed else functional.conv1d
        return convolve(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.place
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x = grad_weight = None
        if needs_x:
            sizes = [stride], [padding], [1], transposed, [0], 1
            grad_x, _, _ = torch.ops.aten.convolution_backward(
                grad_y, x, weight, None, *sizes, [True, False, False]
            )
        if needs_weight:
            # transposed, what went in and what came out change their parts
            seen, changed = (grad_y, x) if transposed else (x, grad_y)
            grad_weight = _weight_gradient(seen, changed, weight.shape, stride, padding)
        grad_bias = grad_y.sum((0, 2)) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None


def _weight_gradient(
    x: Tensor, grad_y: Tensor, shape: torch.Size, stride: int, padding: int
) -> Tensor:
    """Return the gradient of a convolution's weights [outputs, inputs, K].

    Args:
        x: [B, inputs, T].
        grad_y: [B, outputs, T'].
        shape: of the weights.
        stride: of the convolution.
        padding: of it, on both sides.
    """
    windows = functional.pad(x, (padding, padding)).unfold(2, shape[2], stride)
    rows = windows.transpose(1, 2).flatten(2).flatten(0, 1)  # [B T', inputs K]
    columns = grad_y.transpose(0, 1).flatten(1)  # [outputs, B T']
    return torch.mm(columns, rows).view(shape)
