"""Resumes a learner of the linear policy: arguments are root checkpoint updates result."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from leray.algorithms.imitation.feed import Feed
from leray.algorithms.imitation.learner import ImitationLearner
from leray.algorithms.trainable import DataSource
from tests.algorithms.imitation.linear import LinearPolicy, LinearPolicyConfig

OPTIONS = {"dropout": 0.5, "ema_decay": 0.9, "falling": True, "counts": True}
"""All that could make a resumed run differ."""
BATCH, SEED, TOTAL = 8, 7, 20


def make_feed(source, learner, *, batch_size=BATCH, **place) -> Feed:
    policy = learner.policy
    return Feed(source, policy.config, policy.features, batch_size=batch_size, seed=SEED, **place)


def everything(learner) -> dict[str, torch.Tensor]:
    """Copies of all tensors that updates change."""
    state = learner.state()
    tensors = {f"model/{k}": v for k, v in learner.policy.model.state_dict().items()}
    tensors |= state.moments | {f"average/{k}": v for k, v in state.average.items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def go_on(root: str, checkpoint: Path, updates: int) -> dict[str, torch.Tensor]:
    """Resume a checkpoint and train on."""
    policy = LinearPolicy.from_pretrained(checkpoint / "pretrained_model")
    policy.config = LinearPolicyConfig(**OPTIONS)
    learner = ImitationLearner(policy, total_updates=TOTAL, seed=SEED)
    learner.load_state(checkpoint / "training_state")
    feed = make_feed(DataSource(root=root), learner)
    feed.go_to(learner.num_updates)
    for _ in range(updates):
        learner.update(feed)
    return everything(learner)


if __name__ == "__main__":
    root, checkpoint, updates, result = sys.argv[1:]
    save_file(go_on(root, Path(checkpoint), int(updates)), result)
