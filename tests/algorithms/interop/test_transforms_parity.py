"""Changes of training pictures beside torchvision's, which LeRobot uses."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.imitation.transforms import KINDS
from tests.algorithms.interop.peer import needs_peer, run_peer

pytestmark = [pytest.mark.slow, needs_peer]

STRENGTHS = {
    "brightness": (0.0, 2.0),
    "contrast": (0.0, 2.0),
    "saturation": (0.0, 2.0),
    "hue": (-0.5, 0.5),
    "sharpness": (0.0, 2.0),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory, request):
    """Pictures and strengths, and what torchvision makes of them."""
    folder = tmp_path_factory.mktemp("transforms")
    torch.manual_seed(0)
    size = 12
    given = {"pictures": torch.rand(size, 2, 3, 31, 44)}
    given["pictures"][:, 0] = given["pictures"][:, 0].mul(4).round() / 4  # equal channels too
    for kind, (low, high) in STRENGTHS.items():
        given[kind] = low + (high - low) * torch.rand(size, 1)
    given["affine"] = torch.rand(size, 3) * torch.tensor([60, 0.4, 0.4]) - torch.tensor(
        [30, 0.2, 0.2]
    )
    save_file(given, folder / "given.safetensors")
    program = request.path.with_name("transforms_peer.py")
    run_peer(program, folder / "given.safetensors", folder / "changed.safetensors")
    return given, load_file(folder / "changed.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_torchvisions(both, kind):
    given, changed = both
    ours = KINDS[kind](given["pictures"], given[kind])
    wrong = (ours - changed[kind]).abs() > 1e-5
    if kind == "affine":  # half way between two pixels either is the nearest
        assert wrong.float().mean() < 1e-3
    else:
        assert not wrong.any()
