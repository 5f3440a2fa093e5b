"""Processor files beside LeRobot's own: the same files, and the same numbers both ways."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.imitation.normalizer import Normalizer
from leray.algorithms.processor import MODES, Processor
from leray.data.features import Features
from leray.data.names import ACTION
from tests.algorithms.conformance.kinds import (
    ACTIONS,
    CAMERA,
    ENV,
    KINDS,
    PICTURE,
    STATE,
    make_policy,
    stats_of,
)
from tests.algorithms.interop.peer import needs_peer, run_peer

pytestmark = [pytest.mark.slow, needs_peer]

FEATURES = {
    "act": Features({**PICTURE, **STATE, **ENV, **ACTIONS}),
    "diffusion": Features({**STATE, **PICTURE, **ENV, **ACTIONS}),
    "vqbet": Features({**PICTURE, **STATE, **ACTIONS}),
}
RENAME = {"observation.images.cam_high": CAMERA}


@pytest.fixture(scope="module")
def cases(tmp_path_factory, request):
    """Folders of all types and modes, and what LeRobot makes of them."""
    root, folders = tmp_path_factory.mktemp("processors"), {}
    for name, features in FEATURES.items():
        for mode in MODES:
            folder = folders[name, mode] = root / f"{name}-{mode}"
            mapping = dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), mode)
            write(folder, make_policy(KINDS[name], features, normalization_mapping=mapping))
    program = request.path.with_name("processor_peer.py")
    run_peer(program, *folders.values())
    return folders


def write(folder, policy):
    processor = policy.processor
    policy.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    processor.rename_map = RENAME
    (folder / "ours").mkdir()
    processor.save(folder / "ours")
    (folder / "rename.json").write_text(json.dumps(RENAME))
    stats = {
        f"{name}.{stat}": torch.as_tensor(value, dtype=torch.float32)
        for name, values in stats_of(processor.features).items()
        for stat, value in values.items()
    }
    save_file(stats, folder / "stats.safetensors")
    save_file(data_for(processor.source_features), folder / "data.safetensors")


def data_for(features):
    torch.manual_seed(11)
    return {
        name: torch.rand(4, 3, *feature.shape[:2])
        if feature.dtype == "uint8"
        else torch.randn(4, *feature.shape) * 3
        for name, feature in features.items()
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FEATURES)
def test_files_are_the_same_and_so_are_the_numbers(cases, name, mode):
    folder = cases[name, mode]
    config = json.loads((folder / "config.json").read_text())
    assert config["type"] == name
    ours, theirs = folder / "ours", folder / "theirs"
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    for path in ours.iterdir():
        other = theirs / path.name
        if path.suffix == ".json":
            assert path.read_text().split() == other.read_text().split()  # and their order
        else:
            tensors, others = load_file(path), load_file(other)
            assert tensors.keys() == others.keys()
            for key, value in tensors.items():
                assert value.shape == others[key].shape, key
                assert torch.equal(value, others[key]), key
    data, expected = load_file(folder / "data.safetensors"), load_file(folder / "ours.safetensors")
    for source in (ours, theirs):
        processor = Processor.load(source, FEATURES[name], plain=False)
        normalizer = Normalizer(processor, torch.device("cpu"))
        for key, values in processor.renamed(data).items():
            assert torch.equal(normalizer(key, values), expected[f"into.{key}"]), key
        assert torch.equal(normalizer.inverse(ACTION, data[ACTION]), expected["back"])
