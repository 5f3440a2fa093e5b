"""The weights that vision backbones start from, wherever they can be had without torchvision."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from leray.algorithms.hub import download
from leray.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

HUB_FILE = "model.safetensors"
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""torchvision's names of layers that stand in a plain sequence."""


class Source(NamedTuple):
    """Where weights are kept, both times under torchvision's names."""

    file: str
    """Of torchvision, in torch's cache."""
    repo_id: str
    """Of timm, on the Hub."""


SOURCES = {
    "resnet18": {"IMAGENET1K_V1": Source("resnet18-f37072fd.pth", "timm/resnet18.tv_in1k")},
    "resnet34": {"IMAGENET1K_V1": Source("resnet34-b627a593.pth", "timm/resnet34.tv_in1k")},
    "resnet50": {
        "IMAGENET1K_V1": Source("resnet50-0676ba61.pth", "timm/resnet50.tv_in1k"),
        "IMAGENET1K_V2": Source("resnet50-11ad3fa6.pth", "timm/resnet50.tv2_in1k"),
    },
    "resnet101": {
        "IMAGENET1K_V1": Source("resnet101-63fe2227.pth", "timm/resnet101.tv_in1k"),
        "IMAGENET1K_V2": Source("resnet101-cd907fc2.pth", "timm/resnet101.tv2_in1k"),
    },
    "resnet152": {
        "IMAGENET1K_V1": Source("resnet152-394f9c45.pth", "timm/resnet152.tv_in1k"),
        "IMAGENET1K_V2": Source("resnet152-f82ba261.pth", "timm/resnet152.tv2_in1k"),
    },
}
"""By kind of ResNet, and torchvision's name for the weights; the last are its DEFAULT."""


def load_backbone(
    backbone: nn.Module, weights: str, kind: str, path: str | Path | None = None
) -> bool:
    """Copy pretrained weights into a backbone; where there are none, warn and leave it.

    They are looked for at `path`, else in torch's cache (`$TORCH_HOME/hub/checkpoints`), else in
    timm's repo on the Hub, or its copy in the Hub's cache.

    Args:
        backbone: a `ResNet`, or its `numbered()` form.
        weights: torchvision's name, for example `ResNet18_Weights.IMAGENET1K_V1`.
        kind: of ResNet, for example `resnet18`.
        path: a file with the weights (`.safetensors`, or torchvision's `.pth`), or a repo of timm's
            on the Hub.

    Returns:
        Whether there were any.

    Raises:
        ConfigError: there is no such name, or the weights are of another network.
        CheckpointError: there is nothing at `path`, or a file is damaged.
    """
    source = _source(weights, kind)
    if path is not None:
        file = _given(path)
    else:
        try:
            file = _found(source)
        except CheckpointError as error:
            logger.warning(
                "%s for the %s are not at %s and not on the Hub (%s): it starts from random "
                "weights; put them there, or say where they are with "
                "--policy.pretrained_backbone_path",
                weights,
                kind,
                torch_cache() / source.file,
                error,
            )
            return False
    _fill(backbone, _read(file), file)
    return True


def backbones(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the vision backbones of a policy's model, by the name that LeRobot gives them."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "backbone":
            yield module


def torch_cache() -> Path:
    """Return the folder that torch downloads weights to."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _source(weights: str, kind: str) -> Source:
    owner, _, version = weights.rpartition(".")
    known = SOURCES[kind]
    version = list(known)[-1] if version == "DEFAULT" else version
    if owner.lower() not in ("", f"{kind}_weights") or version not in known:
        name = kind.replace("resnet", "ResNet")
        allowed = ", ".join(f"{name}_Weights.{one}" for one in known)
        raise ConfigError(
            f"--policy.pretrained_backbone_weights={weights}: for {kind}, allowed are {allowed}, "
            "or null"
        )
    return known[version]


def _given(path: str | Path) -> Path:
    """Return the file that the option names."""
    file = Path(path).expanduser()
    if file.is_dir():
        file /= HUB_FILE
    if file.is_file():
        return file
    if str(path).count("/") != 1 or os.path.isabs(path):
        raise CheckpointError(f"--policy.pretrained_backbone_path={path}: there is no such file")
    return _downloaded(str(path))


def _found(source: Source) -> Path:
    cached = torch_cache() / source.file
    return cached if cached.is_file() else _downloaded(source.repo_id)


def _downloaded(repo_id: str) -> Path:
    file = download(repo_id, [HUB_FILE]) / HUB_FILE
    if not file.is_file():
        raise CheckpointError(f"{repo_id} on the Hub has no {HUB_FILE}")
    return file


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        stored = torch.load(file, map_location="cpu", weights_only=True)
        return {str(name): torch.as_tensor(tensor) for name, tensor in stored.items()}
    except Exception as error:  # torch and safetensors raise many types
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file} cannot be read as weights ({type(error).__name__}: {reason}): delete it, or "
            "give --policy.pretrained_backbone_path"
        ) from error


@torch.no_grad()
def _fill(backbone: nn.Module, stored: dict[str, Tensor], file: Path) -> None:
    own = backbone.state_dict()
    names = {name: _torchvision_name(name) for name in own}
    wrong = [
        theirs
        for name, theirs in names.items()
        if theirs not in stored or stored[theirs].shape != own[name].shape
        if not name.endswith("num_batches_tracked")  # old files do not have it
    ]
    if wrong:
        raise ConfigError(
            f"{file} does not fit the vision backbone: {len(wrong)} tensors are missing or of "
            f"another shape, the first is {wrong[0]}; give weights of --policy.vision_backbone"
        )
    for name, theirs in names.items():
        if theirs in stored:
            own[name].copy_(stored[theirs])


def _torchvision_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{NUMBERED.get(layer, layer)}.{rest}"
