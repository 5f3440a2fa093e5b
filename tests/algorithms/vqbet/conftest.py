"""Small VQ-BeT policies and batches."""

import numpy as np
import pytest
import torch

from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.policy import VQBeTPolicy
from leray.data.features import Feature, Features

AXES = ("height", "width", "channels")
STATES = Features(
    {
        "observation.state": Feature("float32", (3,)),
        "observation.environment_state": Feature("float32", (2,)),
        "action": Feature("float32", (2,)),
    }
)
PICTURES = Features(
    {
        "observation.state": Feature("float32", (3,)),
        "observation.image": Feature("uint8", (44, 48, 3), AXES),
        "action": Feature("float32", (2,)),
    }
)
SMALL = {
    "n_obs_steps": 3,
    "n_action_pred_token": 2,
    "action_chunk_size": 4,
    "vqvae_n_embed": 6,
    "vqvae_embedding_dim": 8,
    "vqvae_enc_hidden_dim": 16,
    "gpt_block_size": 20,
    "gpt_input_dim": 12,
    "gpt_output_dim": 20,
    "gpt_hidden_dim": 16,
    "gpt_n_layer": 2,
    "gpt_n_head": 4,
    "crop_shape": (40, 40),
    "spatial_softmax_num_keypoints": 4,
    "n_vqvae_training_steps": 3,
    "scheduler_warmup_steps": 0,
}


def stats(features):
    """Return statistics under which actions are within -2 and 2, and states within -1 and 3."""
    return {
        name: {"min": np.full(size, low), "max": np.full(size, high)}
        for name, (size, low, high) in (
            (k, (f.shape, -2.0, 2.0) if k == "action" else (f.shape, -1.0, 3.0))
            for k, f in features.items()
            if len(f.shape) == 1
        )
    }


@pytest.fixture
def make_policy():
    """Build a small policy with fresh weights; options are those of its config."""

    def make(features=STATES, seed=0, **options) -> VQBeTPolicy:
        torch.manual_seed(seed)
        config = VQBeTPolicyConfig(**{**SMALL, **options})
        processor = VQBeTPolicy.make_processor(
            features, config, stats(features), use_imagenet_stats=False
        )
        return VQBeTPolicy(config, processor)

    return make


@pytest.fixture
def make_batch():
    """Build a random batch of raw windows for a policy."""

    def make(policy, seed=0, size=5) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        config, batch = policy.config, {}
        for name, feature in policy.features.items():
            indices = (
                config.action_delta_indices
                if name == "action"
                else config.observation_delta_indices
            )
            shape = (size, len(indices), *feature.shape)
            if feature.dtype == "uint8":
                batch[name] = rng.integers(0, 256, shape, dtype=np.uint8)
            else:
                batch[name] = rng.uniform(-1, 2, shape).astype(np.float32)
        batch["action_is_pad"] = np.zeros((size, len(config.action_delta_indices)), bool)
        return batch

    return make


@pytest.fixture
def train():
    """Take one update per batch with a learner."""

    def run(learner, batches) -> None:
        for batch in batches:
            learner.update(iter([batch]))

    return run
