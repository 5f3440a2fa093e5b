"""Options of Diffusion Policy: LeRobot's fields, what fits together, the learning rate."""

import json
import math
from dataclasses import fields

import pytest

from leray.algorithms.config import PolicyConfig
from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.policy import DiffusionPolicy
from leray.algorithms.pretrained import read_config
from leray.errors import ConfigError

LEROBOT = {  # 0.4.4
    "n_obs_steps": 2,
    "horizon": 16,
    "n_action_steps": 8,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "drop_n_last_frames": 7,
    "vision_backbone": "resnet18",
    "resize_shape": None,
    "crop_ratio": 1.0,
    "crop_shape": None,
    "crop_is_random": True,
    "pretrained_backbone_weights": None,
    "use_group_norm": True,
    "spatial_softmax_num_keypoints": 32,
    "use_separate_rgb_encoder_per_camera": False,
    "down_dims": (512, 1024, 2048),
    "kernel_size": 5,
    "n_groups": 8,
    "diffusion_step_embed_dim": 128,
    "use_film_scale_modulation": True,
    "noise_scheduler_type": "DDPM",
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "num_inference_steps": None,
    "compile_model": False,
    "compile_mode": "reduce-overhead",
    "do_mask_loss_for_padding": False,
    "optimizer_lr": 1e-4,
    "optimizer_betas": (0.95, 0.999),
    "optimizer_eps": 1e-8,
    "optimizer_weight_decay": 1e-6,
    "scheduler_name": "cosine",
    "scheduler_warmup_steps": 500,
}
LEROBOT_COMMON = {"device", "use_amp", "pretrained_path", "type"}
LEROBOT_COMMON |= {"input_features", "output_features", "normalization_mapping"}


def test_fields_and_defaults_are_lerobots():
    config = DiffusionPolicyConfig()
    assert {name: getattr(config, name) for name in LEROBOT} == LEROBOT
    assert config.type == "diffusion"
    own = {field.name for field in fields(PolicyConfig)}
    training_only = {f.name for f in fields(config) if f.metadata.get("training_only")}
    others = {field.name for field in fields(config)} - LEROBOT.keys() - own - training_only
    assert others == {"use_amp"}


def test_the_file_holds_nothing_that_lerobot_does_not_know(make_policy, tmp_path):
    make_policy("left", compile_model=False, ema_decay=0.9).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.keys() <= LEROBOT.keys() | LEROBOT_COMMON
    assert LEROBOT.keys() - written.keys() == {"compile_model", "compile_mode"}


def test_a_file_of_an_older_lerobot_is_read(make_policy, tmp_path):
    make_policy("left", crop_shape=(32, 36)).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    for newer in ("resize_shape", "crop_ratio"):
        del written[newer]
    written |= {"push_to_hub": True, "repo_id": None, "use_peft": False}
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = read_config(tmp_path, DiffusionPolicyConfig).config
    assert config.crop_shape == (32, 36)
    assert config.resize_shape is None
    assert DiffusionPolicy.from_pretrained(tmp_path).config == config


@pytest.mark.parametrize(
    ("resize", "ratio", "given", "crop"),
    [
        ((96, 97), 0.9, None, (86, 87)),
        ((96, 96), 1.0, (84, 84), None),
        (None, 0.5, (84, 80), (84, 80)),
    ],
)
def test_the_crop_follows_the_resized_pictures(resize, ratio, given, crop):
    config = DiffusionPolicyConfig(resize_shape=resize, crop_ratio=ratio, crop_shape=given)
    assert config.crop_shape == crop


def test_frames_around_the_present_one():
    config = DiffusionPolicyConfig()
    assert config.observation_delta_indices == [-1, 0]
    assert config.action_delta_indices == list(range(-1, 15))
    windows = config.dataset_windows(["observation.state", "action"], fps=10)
    assert windows["observation.state"] == [-0.1, 0.0]
    assert windows["action"][-1] == pytest.approx(1.4)
    one = DiffusionPolicyConfig(n_obs_steps=1)
    assert one.observation_delta_indices == [0]
    assert one.action_delta_indices == list(range(16))


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 12},
        {"n_action_steps": 16},
        {"num_inference_steps": 101},
        {"num_inference_steps": 0},
        {"down_dims": ()},
        {"down_dims": (20, 40), "n_groups": 8},
        {"down_dims": (12, 24), "n_groups": 4},
        {"kernel_size": 4},
        {"diffusion_step_embed_dim": 5},
        {"crop_ratio": 0.0},
        {"crop_shape": (0, 84)},
        {"resize_shape": (96, 0)},
        {"vision_backbone": "vgg16"},
        {"noise_scheduler_type": "Euler"},
        {"prediction_type": "v"},
        {"beta_schedule": "cubic"},
        {"scheduler_name": "steps"},
        {"scheduler_warmup_steps": -1},
        {"optimizer_lr": 0.0},
        {"pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1"},
        {"n_obs_steps": 0},
    ],
    ids=str,
)
def test_errors_name_the_option_and_what_is_allowed(options):
    with pytest.raises(ConfigError) as error:
        DiffusionPolicyConfig(**options)
    assert f"--policy.{next(iter(options))}=" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_learning_rate_rises_then_falls_like_a_cosine():
    factor = DiffusionPolicyConfig(scheduler_warmup_steps=100).lr_factor
    assert factor(0, 1100) == 0
    assert factor(25, 1100) == 0.25
    assert factor(100, 1100) == 1
    assert factor(350, 1100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(600, 1100) == pytest.approx(0.5)
    assert factor(1100, 1100) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1]),
        ("constant", [1, 1, 1, 1, 1]),
    ],
)
def test_other_schedules_of_the_learning_rate(name, expected):
    config = DiffusionPolicyConfig(scheduler_name=name, scheduler_warmup_steps=10)
    assert [config.lr_factor(u, 50) for u in (0, 5, 10, 20, 50)] == pytest.approx(expected)


def test_the_optimizer_is_adam_with_lerobots_numbers():
    preset = DiffusionPolicyConfig().optimizer
    assert (preset.type, preset.lr, preset.betas) == ("adam", 1e-4, (0.95, 0.999))
    assert (preset.eps, preset.weight_decay, preset.grad_clip_norm) == (1e-8, 1e-6, 10)
