"""Pretrained vision backbones: where they are looked for, and that they fit."""

import functools
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leray.algorithms.imitation import backbone as backbone_module
from leray.algorithms.imitation.backbone import SOURCES, backbones, load_backbone, torch_cache
from leray.algorithms.networks.resnet import KINDS, ResNet
from leray.errors import CheckpointError, ConfigError

WEIGHTS, FILE = "ResNet18_Weights.IMAGENET1K_V1", "resnet18-f37072fd.pth"
OPTION = "--policy.pretrained_backbone_path"


@functools.cache
def network(kind):
    return ResNet(kind, "batch").state_dict()


def stored(kind="resnet18"):
    """A file's content with torchvision's names: other weights, and the classifier."""
    tensors = {name: tensor + 1 for name, tensor in network(kind).items()}
    return {**tensors, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder torch downloads to, empty; the Hub is not reached."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "torch/hub/checkpoints"
    assert torch_cache() == folder
    folder.mkdir(parents=True)
    return folder


def assert_loaded(backbone, tensors):
    """Check a backbone's tensors, in the order in which torchvision has them too."""
    own = list(backbone.state_dict().values())
    names = [name for name in network("resnet18") if name in tensors]
    if len(own) < len(names):  # frozen
        names = [name for name in names if not name.endswith("num_batches_tracked")]
    assert len(own) == len(names)
    for tensor, name in zip(own, names, strict=True):
        assert torch.equal(tensor, tensors[name].to(tensor.dtype)), name


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("numbered", [False, True])
def test_torchs_cache_fills_named_and_numbered_backbones(cache, norm, numbered):
    tensors = stored()
    torch.save(tensors, cache / FILE)
    network = ResNet("resnet18", norm)
    part = network.numbered() if numbered else network
    assert load_backbone(part, WEIGHTS, "resnet18") is True
    assert_loaded(part, tensors)


@pytest.mark.parametrize("name", [WEIGHTS, "IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.DEFAULT"])
def test_torchvisions_ways_to_name_weights(cache, name):
    torch.save(stored(), cache / FILE)
    assert load_backbone(ResNet("resnet18", "frozen"), name, "resnet18") is True


@pytest.mark.parametrize("form", ["pth", "safetensors", "folder"])
def test_the_option_comes_first(cache, tmp_path, form):
    tensors = stored()
    torch.save({}, cache / FILE)
    path = tmp_path / f"mine.{form}"
    if form == "folder":
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
    else:
        (torch.save if form == "pth" else save_file)(tensors, path)
    network = ResNet("resnet18", "frozen")
    assert load_backbone(network, WEIGHTS, "resnet18", path) is True
    assert_loaded(network, tensors)


def test_files_of_old_without_counts_of_batches(cache):
    tensors = {k: v for k, v in stored().items() if not k.endswith("num_batches_tracked")}
    torch.save(tensors, cache / FILE)
    network = ResNet("resnet18", "batch")
    assert load_backbone(network, WEIGHTS, "resnet18") is True
    assert torch.equal(network.bn1.running_var, tensors["bn1.running_var"])
    assert network.bn1.num_batches_tracked == 0


def test_the_hub_is_asked_last(cache, tmp_path, monkeypatch):
    tensors, asked = stored(), []
    folder = tmp_path / "snapshot"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")

    def download(repo_id, files):
        asked.append((repo_id, *files))
        return folder

    monkeypatch.setattr(backbone_module, "download", download)
    network = ResNet("resnet18", "frozen")
    assert load_backbone(network, WEIGHTS, "resnet18") is True
    assert_loaded(network, tensors)
    assert load_backbone(network, WEIGHTS, "resnet18", "me/mine") is True
    assert asked == [
        ("timm/resnet18.tv_in1k", "model.safetensors"),
        ("me/mine", "model.safetensors"),
    ]
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"me/mine on the Hub has no model.safetensors"):
        load_backbone(network, WEIGHTS, "resnet18", "me/mine")


def test_without_any_it_says_so_and_starts_from_random_weights(cache, caplog):
    network = ResNet("resnet18", "frozen")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        assert load_backbone(network, WEIGHTS, "resnet18") is False
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line
    for word in (WEIGHTS, str(cache / FILE), "timm/resnet18.tv_in1k", "random weights", OPTION):
        assert word in line
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("weights", "kind", "allowed"),
    [
        ("ResNet18_Weights.IMAGENET1K_V2", "resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
        (WEIGHTS, "resnet50", "ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2"),
        ("imagenet", "resnet34", "ResNet34_Weights.IMAGENET1K_V1"),
    ],
)
def test_unknown_names_are_refused(cache, weights, kind, allowed):
    with pytest.raises(ConfigError) as caught:
        load_backbone(nn.Identity(), weights, kind)
    flag = f"--policy.pretrained_backbone_weights={weights}"
    assert str(caught.value) == f"{flag}: for {kind}, allowed are {allowed}, or null"


def test_what_the_option_names_must_be_there_and_whole(cache, tmp_path):
    network = ResNet("resnet18", "frozen")
    with pytest.raises(CheckpointError, match=rf"{OPTION}=/nowhere/x.pth: there is no such file"):
        load_backbone(network, WEIGHTS, "resnet18", "/nowhere/x.pth")
    with pytest.raises(CheckpointError, match="no/such: offline mode"):
        load_backbone(network, WEIGHTS, "resnet18", "no/such")
    for suffix in ("pth", "safetensors"):
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
            load_backbone(network, WEIGHTS, "resnet18", path)
        assert "\n" not in str(caught.value)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(cache, tmp_path):
    torch.save({"conv1.weight": Evil(tmp_path / "done")}, cache / FILE)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_backbone(ResNet("resnet18", "frozen"), WEIGHTS, "resnet18")
    assert not (tmp_path / "done").exists()


def test_weights_of_another_network_are_refused_and_change_nothing(cache):
    torch.save(stored("resnet34") | {"layer4.1.bn2.bias": torch.zeros(3)}, cache / FILE)
    network = ResNet("resnet18", "frozen")
    before = network.conv1.weight.clone()
    with pytest.raises(ConfigError, match=r"1 tensors are missing .* first is layer4.1.bn2.bias"):
        load_backbone(network, WEIGHTS, "resnet18")
    assert torch.equal(network.conv1.weight, before)
    torch.save(stored(), cache / "resnet34-b627a593.pth")
    with pytest.raises(ConfigError, match=r"\d\d tensors are missing .*layer1.2.conv1.weight"):
        load_backbone(ResNet("resnet34", "frozen"), "ResNet34_Weights.DEFAULT", "resnet34")


def test_all_kinds_have_a_source():
    assert SOURCES.keys() == KINDS.keys()
    files = [source.file for versions in SOURCES.values() for source in versions.values()]
    assert len(set(files)) == len(files)


def test_backbones_are_found_by_name():
    model = nn.Module()
    model.model = nn.Module()
    model.model.backbone = ResNet("resnet18", "frozen")
    model.encoders = nn.ModuleList([nn.Module(), nn.Module()])
    for encoder in model.encoders:
        encoder.backbone = nn.Conv2d(3, 3, 1)
    assert list(backbones(model)) == [model.model.backbone, *(e.backbone for e in model.encoders)]
