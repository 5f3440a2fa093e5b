import pytest

from leray.algorithms.trainable import DataSource
from leray.algorithms.vqbet.algorithm import VQBeTConfig
from leray.errors import ConfigError


def place(total_steps, **options):
    config = VQBeTConfig()
    config.prepare(options, 64)
    config.place(
        online=False,
        replay_folder="",
        replay_slack=0,
        dataset=DataSource(root="."),
        total_steps=total_steps,
    )
    return config


def test_a_run_must_be_longer_than_its_first_phase():
    with pytest.raises(ConfigError, match=r"--steps=5: .*n_vqvae_training_steps=5 updates"):
        place(5, n_vqvae_training_steps=5)
    assert place(6, n_vqvae_training_steps=5).total_updates == 6


def test_training_may_go_on_for_less_from_a_checkpoint():
    assert place(5, pretrained_path="checkpoint").total_updates == 5
