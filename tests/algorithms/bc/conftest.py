"""Small behaviour-cloning policies."""

import numpy as np
import pytest
import torch

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.bc.policy import BCPolicy
from leray.algorithms.sac.config import MLPConfig
from leray.data.features import Feature, Features

FEATURES = Features(
    {
        "observation.state": Feature("float32", (3,)),
        "observation.environment_state": Feature("float32", (2,)),
        "action": Feature("float32", (2,), low=(-2.0, -1.0), high=(2.0, 3.0)),
    }
)
STATS = {
    "observation.state": {"mean": [0.5, 0.0, -1.0], "std": [2.0, 1e-4, 0.5]},
    "action": {"min": [-1.0, -1.0], "max": [1.0, 1.0]},
}


@pytest.fixture
def make_policy():
    """Build a policy with a small network; options are those of `BCPolicyConfig`."""

    def make(seed=0, layer_norm=False, features=FEATURES, stats=STATS, **options) -> BCPolicy:
        network = MLPConfig(hidden_dims=[16, 12], layer_norm=layer_norm)
        config = BCPolicyConfig(actor_network_kwargs=network, **options)
        processor = BCPolicy.make_processor(features, config, stats, use_imagenet_stats=True)
        torch.manual_seed(seed)
        return BCPolicy(config, processor)

    return make


@pytest.fixture
def observations():
    """Five observations; the second element of the state leaves the range where it is clipped."""
    rng = np.random.default_rng(0)
    return {
        "observation.state": rng.normal(size=(5, 3)).astype(np.float32),
        "observation.environment_state": rng.normal(size=(5, 2)).astype(np.float32),
    }
