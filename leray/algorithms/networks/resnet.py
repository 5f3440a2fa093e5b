"""ResNet backbones (He et al. 2015, arXiv 1512.03385) without torchvision, with its tensor names.

Only the part before the pooling is here: pictures [B, 3, H, W] to a map of features, a
thirty-second of the size.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.errors import ConfigError

Norm = Callable[[int], nn.Module]

NORM_EPS = 1e-5
GROUP_SIZE = 16
"""Channels of a group where groups are normalised."""
LARGE = 200 * 200
"""Pixels from which on convolutions are faster where the channels of a pixel lie together."""


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics and weights, all of them buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each channel scaled and shifted."""
        scale, shift = self.terms()
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    def terms(self) -> tuple[Tensor, Tensor]:
        """Return what each channel is multiplied with, and what is added then, [channels] each."""
        scale = self.weight * (self.running_var + NORM_EPS).rsqrt()
        return scale, self.bias - self.running_mean * scale


class Shortcut(nn.Sequential):
    """A normalised convolution, for blocks whose output has another size than their input."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x in the new size."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d)
        return _convolve(conv, norm, x)


class BasicBlock(nn.Module):
    """Two convolutions of 3x3 and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        if dilation > 1:
            raise ConfigError("a dilated final stage needs resnet50 or larger")
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = norm(width)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the block."""
        y = self.relu(_convolve(self.conv1, self.bn1, x))
        y = _convolve(self.conv2, self.bn2, y)
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, the last to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, stride, dilation)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the block."""
        y = self.relu(_convolve(self.conv1, self.bn1, x))
        y = self.relu(_convolve(self.conv2, self.bn2, y))
        y = _convolve(self.conv3, self.bn3, y)
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


KINDS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}

NORMS: dict[str, Norm] = {
    "frozen": FrozenBatchNorm,
    "batch": partial(nn.BatchNorm2d, eps=NORM_EPS),
    "group": lambda channels: nn.GroupNorm(channels // GROUP_SIZE, channels, NORM_EPS),
}
"""`frozen`: as ACT has it; `group`: 16 channels a group, as Diffusion Policy has it."""


class ResNet(nn.Sequential):
    """The layers before the pooling, under torchvision's names: conv1, bn1, layer1 .. layer4.

    Args:
        kind: one of `KINDS`.
        norm: one of `NORMS`.
        dilate_last: keep the size in the last stage, with dilated convolutions instead.

    Raises:
        ConfigError: there is no such network.
    """

    conv1: nn.Conv2d
    bn1: nn.Module
    maxpool: nn.MaxPool2d
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, kind: str, norm: str, *, dilate_last: bool = False) -> None:
        if kind not in KINDS:
            raise ConfigError(f"vision_backbone={kind}: allowed are {', '.join(KINDS)}")
        block, depths = KINDS[kind]
        make = NORMS[norm]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            bn1=make(64),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, 2, 1),
        )
        channels = 64
        for stage, depth in enumerate(depths):
            width, last = 64 * 2**stage, stage == len(depths) - 1
            dilation = 2 if last and dilate_last else 1
            stride = 1 if stage == 0 or dilation > 1 else 2
            blocks = []
            for number in range(depth):
                first = number == 0
                # a stage that is dilated instead of strided begins with a plain block
                spread = 1 if first else dilation
                blocks.append(block(channels, width, stride if first else 1, spread, make))
                channels = width * block.expansion
            layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        super().__init__(layers)
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of features [B, channels, height / 32, width / 32], rounded up."""
        large = x.shape[-2] * x.shape[-1] >= LARGE
        x = x.contiguous(memory_format=torch.channels_last if large else torch.contiguous_format)
        x = self.maxpool(functional.relu(_convolve(self.conv1, self.bn1, x), inplace=True))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features

    def numbered(self) -> nn.Sequential:
        """Return the same layers, named by their numbers as Diffusion Policy's files have them."""
        return nn.Sequential(*self.children())


def _convolve(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Return the normalised convolution; a frozen norm scales what is smaller, weights or map."""
    y: Tensor
    if not isinstance(norm, FrozenBatchNorm):
        y = norm(conv(x))
        return y
    scale, shift = norm.terms()
    rows, columns = conv.stride
    if conv.weight.numel() < conv.out_channels * x[:, 0, ::rows, ::columns].numel():
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        return functional.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation)
    y = conv(x)
    return y.mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> Shortcut | None:
    if stride == 1 and inputs == outputs:
        return None
    return Shortcut(_conv(inputs, outputs, 1, stride), norm(outputs))
