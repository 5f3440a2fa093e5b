"""What `leray train` refuses, and what it fills in, whatever the policy."""

import pytest

from leray.algorithms.sac.config import SACPolicyConfig
from leray.envs.config import GymEnvConfig
from leray.errors import ConfigError
from leray.platform.config import TrainConfig
from leray.platform.parsing import parse
from leray.platform.sections import DatasetConfig, RunnersConfig, ValidationConfig

DATASET = DatasetConfig(repo_id="lab/reach")
REACH = GymEnvConfig(task="PandaReach-v3")


def config(**options) -> TrainConfig:
    return TrainConfig(policy=SACPolicyConfig(), **options)


@pytest.fixture
def imitation(monkeypatch):
    """Let the policy at hand be one that cannot collect."""
    monkeypatch.setattr(SACPolicyConfig, "learns_online", False)


def test_an_environment_is_trained_in_by_policies_that_can():
    assert config(env=REACH).use_online_training is True
    assert config(env=REACH, dataset=DATASET).use_online_training is True
    assert config(dataset=DATASET).use_online_training is False
    assert (
        config(env=REACH, dataset=DATASET, use_online_training=False).use_online_training is False
    )


def test_an_environment_only_judges_policies_that_cannot_collect(imitation):
    assert config(env=REACH, dataset=DATASET).use_online_training is False
    assert config(dataset=DATASET).use_online_training is False


def test_policies_that_cannot_collect_say_so(imitation):
    with pytest.raises(ConfigError, match=r"--use_online_training=true: sac learns from demon"):
        config(env=REACH, dataset=DATASET, use_online_training=True)
    with pytest.raises(ConfigError, match=r"sac learns from demonstrations: give --dataset"):
        config(env=REACH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": REACH, "validation": ValidationConfig(fraction=0.1)}, "there is none"),
        ({"dataset": DATASET, "num_workers": -1}, "--num_workers=-1"),
        ({"dataset": DATASET, "best_metric": "eval/return_mean"}, "needs an environment"),
        ({"dataset": DATASET, "best_metric": "validation/loss"}, "held-out episodes"),
        ({"env": REACH, "best_metric": "eval/act_ms_p50"}, "allowed are validation/loss, eval/su"),
        ({"env": REACH, "best_metric": "loss/critic"}, "--best_metric=loss/critic: allowed are"),
        ({"dataset": DATASET, "runners": RunnersConfig(num_env_runners=1)}, "nothing is collected"),
    ],
)
def test_what_has_no_effect_is_refused(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config(**options)
    assert "\n" not in str(caught.value)


def test_samples_per_update_are_those_of_all_batches(monkeypatch):
    assert config(env=REACH).samples_per_update == 256
    assert config(env=REACH, batch_size=8).samples_per_update == 8
    monkeypatch.setattr(SACPolicyConfig, "batches_per_update", 4)
    assert config(env=REACH, batch_size=8).samples_per_update == 32


def test_a_command_of_lerobots_is_understood():
    flags = (
        "--dataset.repo_id=lab/reach --dataset.root=demos --policy.type=sac --batch_size=8 "
        "--steps=100000 --num_workers=4 --eval_freq=20000 --save_freq=20000 --log_freq=200 "
        "--dataset.use_imagenet_stats=false --dataset.image_transforms.enable=true "
        "--dataset.image_transforms.brightness=[0.9,1.1] --output_dir=out --seed=1"
    )
    parsed = parse(TrainConfig, flags.split(), command="train")
    assert parsed.dataset is not None
    assert parsed.dataset.image_transforms.brightness == (0.9, 1.1)
    assert not parsed.dataset.use_imagenet_stats
    assert (parsed.num_workers, parsed.learners.num_learners) == (4, 0)
