"""What a run asks of Ray for its learners, and where it evaluates."""

import pytest
import torch

from leray.algorithms.sac.config import SACPolicyConfig
from leray.envs.config import GymEnvConfig
from leray.errors import ConfigError
from leray.platform.build import evaluation_device, gpus_per_learner
from leray.platform.config import TrainConfig
from leray.platform.sections import LearnersConfig


def config(device: str | None, num_learners: int, gpus: float | None = None) -> TrainConfig:
    return TrainConfig(
        policy=SACPolicyConfig(device=device),
        env=GymEnvConfig(task="Pendulum-v1"),
        learners=LearnersConfig(num_learners=num_learners, num_gpus_per_learner=gpus),
    )


@pytest.mark.parametrize(
    ("device", "num_learners", "asked", "gpus"),
    [
        ("cpu", 0, None, 0),
        ("cpu", 2, None, 0),
        ("cuda", 2, None, 1),  # of machines elsewhere: there need not be one here
        ("cuda:1", 1, None, 1),
        ("cuda", 2, 0.5, 0.5),
        ("cpu", 0, 1, 1),
    ],
)
def test_a_learner_reserves_a_gpu_where_it_uses_one(device, num_learners, asked, gpus):
    assert gpus_per_learner(config(device, num_learners, asked)) == gpus


def test_without_a_device_the_best_there_is_counts():
    expected = 1 if torch.cuda.is_available() else 0
    assert gpus_per_learner(config(None, 0)) == gpus_per_learner(config(None, 2)) == expected


def test_a_device_of_this_process_must_be_there():
    with pytest.raises(ConfigError, match="'warp' cannot be used here"):
        gpus_per_learner(config("warp", 0))


@pytest.mark.parametrize(
    ("device", "num_learners", "here"),
    [(None, 0, None), ("cuda", 0, "cuda"), ("cuda", 1, None), ("cpu", 1, "cpu"), (None, 1, None)],
)
def test_evaluation_does_not_ask_for_the_learners_gpu(device, num_learners, here):
    assert evaluation_device(config(device, num_learners)) == here
