"""Small ACT policies and batches."""

import numpy as np
import pytest
import torch

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.act.policy import ACTPolicy
from leray.algorithms.imitation.normalizer import dataset_processor
from leray.data.features import Feature, Features
from leray.data.names import ACTION

SMALL = {
    "chunk_size": 5,
    "n_action_steps": 3,
    "dim_model": 16,
    "n_heads": 2,
    "dim_feedforward": 24,
    "latent_dim": 4,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "dropout": 0.0,
}
SHAPES = {
    "observation.state": (3,),
    "observation.environment_state": (2,),
    "observation.images.front": (32, 48, 3),
    "observation.images.wrist_left": (40, 32, 3),
    "observation.images.top": (32, 48, 3),
    ACTION: (2,),
}
KEYS = {
    "state": "observation.state",
    "env": "observation.environment_state",
    "front": "observation.images.front",
    "wrist": "observation.images.wrist_left",
    "top": "observation.images.top",
}


def feature(name):
    shape = SHAPES[name]
    if len(shape) == 3:
        return Feature("uint8", shape, ("height", "width", "channels"))
    return Feature("float32", shape)


def features_of(inputs):
    """Return the features of a policy whose inputs have these short names."""
    names = [*(KEYS[one] for one in inputs.split()), ACTION]
    return Features({name: feature(name) for name in names})


def stats_of(features):
    rng = np.random.default_rng(1)
    stats = {}
    for name, one in features.items():
        size = one.shape[-1]
        stats[name] = {"mean": rng.normal(size=size), "std": rng.uniform(0.5, 2, size)}
    return stats


@pytest.fixture
def make_policy():
    """Build a small policy; `inputs` are short names, options those of `ACTPolicyConfig`."""

    def make(inputs="state env", seed=0, features=None, **options) -> ACTPolicy:
        config = ACTPolicyConfig(**(SMALL | options))
        features = features or features_of(inputs)
        mapping = config.normalization_mapping
        processor = dataset_processor(
            features, mapping, stats_of(features), use_imagenet_stats=True
        )
        torch.manual_seed(seed)
        return ACTPolicy(config, processor)

    return make


@pytest.fixture
def make_batch():
    """Build raw arrays for a policy: observations, and with `actions` also chunks and masks."""

    def make(policy, count=4, seed=0, *, actions=True):
        rng = np.random.default_rng(seed)
        batch = {}
        for name, one in policy.features.items():
            lead = (count, policy.config.chunk_size) if name == ACTION else (count,)
            batch[name] = (
                rng.integers(0, 256, (*lead, *one.shape), np.uint8)
                if one.dtype == "uint8"
                else rng.normal(size=(*lead, *one.shape)).astype(np.float32)
            )
        if not actions:
            del batch[ACTION]
            return batch
        steps = np.arange(policy.config.chunk_size)
        batch["action_is_pad"] = steps >= rng.integers(1, len(steps) + 1, (count, 1))
        return batch

    return make
