"""Small policies and batches for SAC's tests."""

import pytest
import torch

from leray.algorithms.processor import make_processor
from leray.algorithms.sac.config import MLPConfig, SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.data.features import Feature, Features

FEATURES = Features(
    {
        "observation.state": Feature("float32", (3,)),
        "observation.environment_state": Feature("float32", (2,)),
        "action": Feature("float32", (2,), low=(-2.0, -1.0), high=(2.0, 3.0)),
    }
)
STATS = {"observation.state": {"mean": [0.5, 0.0, -1.0], "std": [2.0, 1.0, 0.5]}}


@pytest.fixture
def make_policy():
    """Build a policy with small networks; options are those of `SACPolicyConfig`."""

    def make(seed=0, layer_norm=False, **options) -> SACPolicy:
        network = {"hidden_dims": [16, 12], "layer_norm": layer_norm}
        config = SACPolicyConfig(
            actor_network_kwargs=MLPConfig(**network),
            critic_network_kwargs=MLPConfig(**network),
            **options,
        )
        policy = SACPolicy(config, make_processor(FEATURES, config.normalization_mapping, STATS))
        policy.initialize(torch.Generator().manual_seed(seed))
        return policy

    return make


@pytest.fixture
def make_batch():
    """Build a random batch of `size` transitions; every fifth ends in a terminal state."""

    def make(seed=0, size=32) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        batch = {"action": normal(size, 2).clamp(-1, 1) * 1.5 + 0.2, "next.reward": normal(size)}
        for prefix in ("", "next."):
            batch[prefix + "observation.state"] = normal(size, 3)
            batch[prefix + "observation.environment_state"] = normal(size, 2)
        batch["bootstrap"] = torch.full((size,), 0.97)
        batch["bootstrap"][::5] = 0.0
        batch["is_offline"] = (torch.arange(size) >= size // 2).float()
        return batch

    return make
