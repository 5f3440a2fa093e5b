"""Small Diffusion Policies and batches."""

import numpy as np
import pytest
import torch

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.policy import DiffusionPolicy
from leray.data.features import Feature, Features

SMALL = {"down_dims": (16, 32), "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 4}
AXES = ("height", "width", "channels")


@pytest.fixture
def make_features():
    """Return a state and an action of 2 numbers, and what is named."""

    def make(*names: str) -> Features:
        features = {"observation.state": Feature("float32", (2,))}
        for name in names:
            if name == "env":
                features["observation.environment_state"] = Feature("float32", (3,))
            else:
                features[f"observation.images.{name}"] = Feature("uint8", (40, 44, 3), AXES)
        return Features({**features, "action": Feature("float32", (2,))})

    return make


@pytest.fixture
def make_policy(make_features):
    """Build a small policy; options are those of `DiffusionPolicyConfig`."""

    def make(*names: str, seed: int = 0, **options) -> DiffusionPolicy:
        features = make_features(*(names or ("env",)))
        stats = {}
        for name, feature in features.items():
            shape = (3, 1, 1) if len(feature.shape) == 3 else feature.shape
            known = {"min": -2.0, "max": 2.0, "mean": 0.5, "std": 0.25}
            stats[name] = {key: np.full(shape, value, np.float32) for key, value in known.items()}
        config = DiffusionPolicyConfig(**{**SMALL, **options})
        torch.manual_seed(seed)
        processor = DiffusionPolicy.make_processor(
            features, config, stats, use_imagenet_stats=False
        )
        return DiffusionPolicy(config, processor)

    return make


@pytest.fixture
def make_batch():
    """Return random windows of a policy's features in their units, pictures as bytes."""

    def make(policy: DiffusionPolicy, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng, batch = np.random.default_rng(seed), {}
        for name, feature in policy.features.items():
            steps = policy.config.horizon if name == "action" else policy.config.n_obs_steps
            shape = (rows, steps, *feature.shape)
            if feature.dtype == "uint8":
                batch[name] = rng.integers(0, 256, shape, dtype=np.uint8)
            else:
                batch[name] = rng.uniform(-2, 2, shape).astype(np.float32)
        batch["action_is_pad"] = np.zeros((rows, policy.config.horizon), bool)
        return batch

    return make
