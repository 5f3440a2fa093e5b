"""Each imitation type in turn."""

import pytest
import torch

from tests.algorithms.conformance.kinds import KINDS, exists


@pytest.fixture(params=KINDS)
def kind(request):
    """A type of policy."""
    found = KINDS[request.param]
    if not exists(found):
        pytest.skip(f"there is no {found.name} yet")
    return found


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.pictures])
def seeing(request):
    """A type of policy that reads pictures."""
    found = KINDS[request.param]
    if not exists(found):
        pytest.skip(f"there is no {found.name} yet")
    return found


@pytest.fixture
def no_noise(monkeypatch):
    """Noise that policies ask torch for is zero."""
    monkeypatch.setattr(
        torch,
        "randn",
        lambda *shape, generator=None, **options: torch.zeros(*shape, **options),
    )
