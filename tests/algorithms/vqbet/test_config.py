import pytest

from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.errors import ConfigError


def test_windows_of_the_defaults():
    config = VQBeTPolicyConfig()
    assert config.observation_delta_indices == [-4, -3, -2, -1, 0]
    assert config.action_delta_indices == list(range(-4, 7))
    assert config.num_queries == 7
    windows = config.dataset_windows(["observation.state", "action"], fps=10)
    assert windows["observation.state"] == pytest.approx([-0.4, -0.3, -0.2, -0.1, 0.0])
    assert len(windows["action"]) == 11


def test_optimizer_preset():
    preset = VQBeTPolicyConfig().optimizer
    assert (preset.type, preset.lr, preset.betas) == ("adam", 1e-4, (0.95, 0.999))
    assert (preset.eps, preset.weight_decay, preset.grad_clip_norm) == (1e-8, 1e-6, 10.0)


@pytest.mark.parametrize(
    ("update", "factor"),
    [(0, 1.0), (9, 1.0), (10, 0.0), (12, 0.5), (14, 1.0), (24, 0.5), (29, 0.1464466)],
)
def test_learning_rate_is_flat_then_rises_and_falls(update, factor):
    config = VQBeTPolicyConfig(n_vqvae_training_steps=10, scheduler_warmup_steps=4)
    assert config.lr_factor(update, 24) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpt_hidden_dim": 30, "gpt_n_head": 4}, "multiple of --policy.gpt_n_head=4"),
        ({"dropout": 1.0}, "--policy.dropout=1.0: give a number from 0 to below 1"),
        ({"bet_softmax_temperature": 0.0}, "bet_softmax_temperature=0.0: give a number > 0"),
        ({"n_vqvae_training_steps": 0}, "n_vqvae_training_steps=0: give a whole number >= 1"),
        ({"vision_backbone": "vgg"}, "vision_backbone=vgg: allowed are resnet18"),
        ({"pretrained_backbone_weights": "x"}, "give --policy.use_group_norm=false"),
        ({"crop_shape": (0, 3)}, "crop_shape"),
        ({"offset_loss_weight": -1.0}, "offset_loss_weight=-1.0: give a number >= 0"),
    ],
)
def test_wrong_options_name_the_flag(options, message):
    with pytest.raises(ConfigError) as error:
        VQBeTPolicyConfig(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
