"""ACT's options: LeRobot's names and defaults, and one line for each that is wrong."""

import pytest

from leray.algorithms.act.config import DILATABLE, ACTPolicyConfig
from leray.algorithms.act.transformer import ACTIVATIONS
from leray.algorithms.config import PolicyConfig
from leray.algorithms.imitation.config import BACKBONES
from leray.algorithms.networks.resnet import KINDS
from leray.algorithms.plugins import register_plugins
from leray.errors import ConfigError

LEROBOT = {
    "n_obs_steps": 1,
    "chunk_size": 100,
    "n_action_steps": 100,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    "replace_final_stride_with_dilation": 0,
    "pre_norm": False,
    "dim_model": 512,
    "n_heads": 8,
    "dim_feedforward": 3200,
    "feedforward_activation": "relu",
    "n_encoder_layers": 4,
    "n_decoder_layers": 1,
    "use_vae": True,
    "latent_dim": 32,
    "n_vae_encoder_layers": 4,
    "temporal_ensemble_coeff": None,
    "dropout": 0.1,
    "kl_weight": 10.0,
    "optimizer_lr": 1e-5,
    "optimizer_weight_decay": 1e-4,
    "optimizer_lr_backbone": 1e-5,
    "device": None,
    "use_amp": False,
    "pretrained_path": None,
}
"""Defaults of LeRobot 0.4.4's ACTConfig."""


def test_defaults_are_lerobots():
    config = ACTPolicyConfig()
    assert {name: getattr(config, name) for name in LEROBOT} == LEROBOT
    register_plugins()
    assert PolicyConfig.get_choice_class("act") is ACTPolicyConfig
    assert config.type == "act"


def test_the_optimizer_is_adamw_with_the_options_rates():
    preset = ACTPolicyConfig(optimizer_lr=3e-4, optimizer_weight_decay=0.02).optimizer
    assert (preset.type, preset.lr, preset.weight_decay) == ("adamw", 3e-4, 0.02)
    assert (preset.betas, preset.eps, preset.grad_clip_norm) == ((0.9, 0.999), 1e-8, 10.0)


def test_windows_are_of_actions_only():
    config = ACTPolicyConfig(chunk_size=3, n_action_steps=2)
    names = ["observation.state", "observation.image", "action"]
    assert config.dataset_windows(names, fps=10) == {"action": [0.0, 0.1, 0.2]}
    assert config.observation_delta_indices is None
    assert config.drop_n_last_frames == 0
    assert config.lr_factor(5, 10) == 1.0


def test_lists_of_names_are_those_of_the_networks():
    assert list(BACKBONES) == list(KINDS)
    assert DILATABLE == ("resnet50", "resnet101", "resnet152")
    assert set(ACTIVATIONS) == {"relu", "gelu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_obs_steps": 2}, "--policy.n_obs_steps=2: ACT allows only 1"),
        ({"chunk_size": 0}, "--policy.chunk_size=0: give a whole number >= 1"),
        ({"n_action_steps": 101}, "--policy.n_action_steps=101: give 1 to chunk_size=100"),
        ({"n_action_steps": 0}, "--policy.n_action_steps=0: give 1 to chunk_size=100"),
        (
            {"temporal_ensemble_coeff": 0.01},
            "--policy.n_action_steps=100: it must be 1 with "
            "--policy.temporal_ensemble_coeff=0.01, which predicts at every step",
        ),
        ({"dim_model": 500}, "--policy.dim_model=500: give a multiple of 4 and of n_heads=8"),
        ({"dim_model": 6, "n_heads": 2}, "--policy.dim_model=6: give a multiple of 4"),
        ({"n_heads": 0}, "--policy.n_heads=0: give a whole number >= 1"),
        ({"n_decoder_layers": 0}, "--policy.n_decoder_layers=0: give a whole number >= 1"),
        (
            {"feedforward_activation": "glu"},
            "--policy.feedforward_activation=glu: allowed are relu, gelu",
        ),
        ({"dropout": 1.0}, "--policy.dropout=1.0: give 0 to below 1"),
        ({"vision_backbone": "vgg"}, "--policy.vision_backbone=vgg: allowed are resnet18, "),
        (
            {"replace_final_stride_with_dilation": 1},
            "--policy.replace_final_stride_with_dilation=1: give 0, or 1 with "
            "--policy.vision_backbone one of resnet50, resnet101, resnet152",
        ),
        ({"optimizer_lr": -1.0}, "--policy.optimizer_lr=-1.0: give a number >= 0"),
        ({"kl_weight": -1.0}, "--policy.kl_weight=-1.0: give a number >= 0"),
        ({"use_amp": False, "ema_decay": 2.0}, "--policy.ema_decay=2.0"),
    ],
)
def test_wrong_options_get_one_line(options, message):
    with pytest.raises(ConfigError) as caught:
        ACTPolicyConfig(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
