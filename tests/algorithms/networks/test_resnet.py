"""ResNets: torchvision's names, shapes and counts, and the numbers of a plain second writing."""

import pytest
import torch
from torch.nn import functional

from leray.algorithms.imitation.config import BACKBONES
from leray.algorithms.networks.resnet import KINDS, LARGE, NORMS, FrozenBatchNorm, ResNet
from leray.errors import ConfigError

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
NORM_TENSORS = {
    "frozen": ("weight", "bias", "running_mean", "running_var"),
    "batch": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "group": ("weight", "bias"),
}
WITH_HEAD = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
"""Parameters that torchvision's documentation states."""


def _head(kind):
    width = 512 if kind in ("resnet18", "resnet34") else 2048
    return width * 1000 + 1000


def _expected(kind, norm):
    """Return names and shapes, spelled out from the paper's table 1 and torchvision's names."""
    tensors = {}

    def layer(conv, bn, shape):
        tensors[f"{conv}.weight"] = shape
        for name in NORM_TENSORS[norm]:
            tensors[f"{bn}.{name}"] = () if name == "num_batches_tracked" else shape[:1]

    layer("conv1", "bn1", (64, 3, 7, 7))
    inputs = 64
    for stage, depth in enumerate(DEPTHS[kind]):
        width = (64, 128, 256, 512)[stage]
        for block in range(depth):
            at = f"layer{stage + 1}.{block}"
            if kind == "resnet50":
                outputs = 4 * width
                layer(f"{at}.conv1", f"{at}.bn1", (width, inputs, 1, 1))
                layer(f"{at}.conv2", f"{at}.bn2", (width, width, 3, 3))
                layer(f"{at}.conv3", f"{at}.bn3", (outputs, width, 1, 1))
            else:
                outputs = width
                layer(f"{at}.conv1", f"{at}.bn1", (width, inputs, 3, 3))
                layer(f"{at}.conv2", f"{at}.bn2", (width, width, 3, 3))
            if block == 0 and (stage > 0 or kind == "resnet50"):
                layer(f"{at}.downsample.0", f"{at}.downsample.1", (outputs, inputs, 1, 1))
            inputs = outputs
    return tensors


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", DEPTHS)
def test_names_and_shapes(kind, norm):
    with torch.device("meta"):
        network = ResNet(kind, norm)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == _expected(kind, norm)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_as_many_as_published(kind):
    with torch.device("meta"):
        networks = {norm: ResNet(kind, norm) for norm in NORMS}
    counts = {
        norm: sum(parameter.numel() for parameter in network.parameters())
        for norm, network in networks.items()
    }
    assert counts["batch"] == counts["group"] == WITH_HEAD[kind] - _head(kind)
    norms = sum(m.weight.numel() for m in networks["frozen"].modules() if is_frozen(m))
    assert counts["frozen"] == counts["batch"] - 2 * norms


def is_frozen(module):
    return isinstance(module, FrozenBatchNorm)


def test_tensor_counts_of_the_three_forms():
    with torch.device("meta"):
        counts = [len(ResNet("resnet18", norm).state_dict()) for norm in NORMS]
    assert counts == [100, 120, 60]  # 20 convolutions with norms of 4, 5 and 2 tensors


def _scatter(network):
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "running_var" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.dim() == 1:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network


def _forward(tensors, x, norm, depths, *, dilated=False):
    """A plain second writing of the network, from its tensors alone."""

    def apply(conv, bn, x, stride=1, dilation=1):
        weight = tensors[f"{conv}.weight"]
        pad = dilation * (weight.shape[-1] // 2)
        x = functional.conv2d(x, weight, None, stride, pad, dilation)
        scale, shift = tensors[f"{bn}.weight"], tensors[f"{bn}.bias"]
        if norm == "group":
            return functional.group_norm(x, len(scale) // 16, scale, shift, 1e-5)
        mean, var = tensors[f"{bn}.running_mean"], tensors[f"{bn}.running_var"]
        return functional.batch_norm(x, mean, var, scale, shift, False, 0.0, 1e-5)

    x = functional.max_pool2d(apply("conv1", "bn1", x, 2).relu(), 3, 2, 1)
    for stage, depth in enumerate(depths, 1):
        spread = dilated and stage == 4
        for block in range(depth):
            at = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 and not spread else 1
            dilation = 2 if spread and block > 0 else 1
            if f"{at}.conv3.weight" in tensors:
                y = apply(f"{at}.conv1", f"{at}.bn1", x).relu()
                y = apply(f"{at}.conv2", f"{at}.bn2", y, stride, dilation).relu()
                y = apply(f"{at}.conv3", f"{at}.bn3", y)
            else:
                y = apply(f"{at}.conv1", f"{at}.bn1", x, stride).relu()
                y = apply(f"{at}.conv2", f"{at}.bn2", y)
            if f"{at}.downsample.0.weight" in tensors:
                x = apply(f"{at}.downsample.0", f"{at}.downsample.1", x, stride)
            x = (x + y).relu()
    return x


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("kind", "dilated"), [("resnet18", False), ("resnet50", True)])
def test_numbers_and_gradients_of_a_second_writing(kind, dilated, norm):
    torch.manual_seed(0)
    network = _scatter(ResNet(kind, norm, dilate_last=dilated)).double().eval()
    x = torch.randn(2, 3, 40, 64, dtype=torch.float64)
    y = network(x)
    tensors = dict(network.state_dict(keep_vars=True))
    expected = _forward(tensors, x, norm, DEPTHS[kind], dilated=dilated)
    assert y.shape == (2, network.channels, 3 if dilated else 2, 4 if dilated else 2)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    stem = network.conv1.weight
    grads = [torch.autograd.grad(value.square().sum(), stem)[0] for value in (y, expected)]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


def test_large_pictures_have_the_same_numbers():
    torch.manual_seed(0)
    network = _scatter(ResNet("resnet18", "frozen"))
    x = torch.randn(1, 3, 200, 208)
    assert x.shape[2] * x.shape[3] >= LARGE
    with torch.no_grad():
        y = network(x)
        expected = _forward(network.state_dict(), x, "frozen", DEPTHS["resnet18"])
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)


def test_numbered_layers_are_the_same_layers():
    network = _scatter(ResNet("resnet18", "group"))
    numbered = network.numbered()
    names = set(numbered.state_dict())
    assert {"0.weight", "1.bias", "4.0.conv1.weight", "5.0.downsample.1.weight"} <= names
    assert len(names) == 60
    x = torch.randn(1, 3, 33, 64)
    torch.testing.assert_close(numbered(x), network(x), rtol=1e-4, atol=1e-5)


def test_frozen_norms_never_learn():
    network = ResNet("resnet18", "frozen").train()
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.named_buffers())
    assert all(parameter.dim() == 4 for parameter in network.parameters())


def test_a_frozen_norm_by_hand():
    norm = FrozenBatchNorm(1)
    norm.weight.fill_(3.0)
    norm.bias.fill_(1.0)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0 - 1e-5)
    # 3 (x - 2) / sqrt(4) + 1
    x = torch.tensor([2.0, 4.0]).view(1, 1, 1, 2)
    assert norm(x).flatten().tolist() == pytest.approx([1.0, 4.0])


def test_fresh_weights_keep_the_gradients_size():
    torch.manual_seed(0)
    weight = ResNet("resnet18", "frozen").layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)  # He, fan out


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (96, 96)])
def test_the_map_is_a_thirty_second_rounded_up(size):
    with torch.device("meta"):
        y = ResNet("resnet18", "frozen")(torch.empty(1, 3, *size))
    assert y.shape == (1, 512, -(-size[0] // 32), -(-size[1] // 32))


def test_what_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"vision_backbone=resnet19: allowed are resnet18, "):
        ResNet("resnet19", "frozen")
    with pytest.raises(ConfigError, match="needs resnet50 or larger"):
        ResNet("resnet18", "frozen", dilate_last=True)


def test_options_name_all_kinds():
    assert tuple(KINDS) == BACKBONES
