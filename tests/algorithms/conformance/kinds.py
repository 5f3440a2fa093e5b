"""A small policy of each imitation type, and what LeRobot 0.4.4 knows of it."""

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from leray.algorithms.imitation.policy import ImitationPolicy
from leray.algorithms.registry import policy_class
from leray.data.features import Feature, Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE

CAMERA = "observation.images.left_wrist"
AXES = ("height", "width", "channels")
STATE = {OBSERVATION_STATE: Feature("float32", (3,))}
ENV = {ENVIRONMENT_STATE: Feature("float32", (2,))}
PICTURE = {CAMERA: Feature("uint8", (40, 44, 3), AXES)}
ACTIONS = {ACTION: Feature("float32", (2,))}

COMMON = (
    "type n_obs_steps input_features output_features device use_amp use_peft push_to_hub repo_id "
    "private tags license pretrained_path normalization_mapping"
)
BACKBONE = "vision_backbone pretrained_backbone_weights"
ENCODER = "crop_shape crop_is_random use_group_norm spatial_softmax_num_keypoints"
ADAM = "optimizer_lr optimizer_betas optimizer_eps optimizer_weight_decay scheduler_warmup_steps"


@dataclass(frozen=True)
class Kind:
    """One type of policy."""

    name: str
    options: dict[str, Any]
    """A small one."""
    vectors: dict[str, Feature]
    """Features without pictures; empty where it needs one."""
    still: dict[str, Any] = field(default_factory=dict)
    """With these options, and with all noise zero, what it does follows from what it sees."""
    heeds: dict[str, Any] | None = field(default_factory=dict)
    """With these options the loss leaves padding out; None: it never does, as in LeRobot."""
    pictures: dict[str, Feature] = field(default_factory=dict)
    """Features with one picture; empty where it reads none."""
    lerobot: str = ""
    """All that may be in its `config.json`; empty where LeRobot does not have the type."""
    module: str = ""
    """What stands before its tensors' names."""

    @property
    def features(self) -> Features:
        """The smallest features."""
        return Features({**(self.vectors or self.pictures), **ACTIONS})


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "act",
            {
                "chunk_size": 5,
                "n_action_steps": 3,
                "dim_model": 16,
                "n_heads": 2,
                "dim_feedforward": 24,
                "latent_dim": 4,
                "n_encoder_layers": 1,
                "n_vae_encoder_layers": 1,
                "pretrained_backbone_weights": None,
            },
            {**STATE, **ENV},
            pictures={**STATE, **PICTURE},
            lerobot=f"{COMMON} {BACKBONE} chunk_size n_action_steps dropout kl_weight pre_norm "
            "replace_final_stride_with_dilation dim_model n_heads dim_feedforward use_vae "
            "feedforward_activation n_encoder_layers n_decoder_layers latent_dim optimizer_lr "
            "n_vae_encoder_layers temporal_ensemble_coeff optimizer_weight_decay "
            "optimizer_lr_backbone",
            module="model.",
        ),
        Kind(
            "diffusion",
            {
                "down_dims": (16, 32),
                "diffusion_step_embed_dim": 16,
                "n_groups": 4,
                "n_action_steps": 3,
                "horizon": 8,
                "num_train_timesteps": 4,
                "crop_shape": (32, 36),
                "spatial_softmax_num_keypoints": 4,
            },
            {**STATE, **ENV},
            still={"noise_scheduler_type": "DDIM"},
            heeds={"do_mask_loss_for_padding": True},
            pictures={**STATE, **PICTURE},
            lerobot=f"{COMMON} {BACKBONE} {ENCODER} {ADAM} horizon n_action_steps kernel_size "
            "drop_n_last_frames resize_shape crop_ratio use_separate_rgb_encoder_per_camera "
            "down_dims n_groups diffusion_step_embed_dim use_film_scale_modulation beta_start "
            "noise_scheduler_type num_train_timesteps beta_schedule beta_end prediction_type "
            "clip_sample clip_sample_range num_inference_steps compile_model compile_mode "
            "do_mask_loss_for_padding scheduler_name",
            module="diffusion.",
        ),
        Kind(
            "vqbet",
            {
                "n_obs_steps": 2,
                "n_action_pred_token": 2,
                "action_chunk_size": 3,
                "crop_shape": (32, 36),
                "spatial_softmax_num_keypoints": 4,
                "vqvae_n_embed": 4,
                "vqvae_embedding_dim": 8,
                "vqvae_enc_hidden_dim": 8,
                "gpt_block_size": 16,
                "gpt_input_dim": 8,
                "gpt_output_dim": 8,
                "gpt_hidden_dim": 8,
                "gpt_n_layer": 1,
                "gpt_n_head": 2,
            },
            {},
            still={"bet_softmax_temperature": 1e-6},
            heeds=None,
            pictures={**STATE, **PICTURE},
            lerobot=f"{COMMON} {BACKBONE} {ENCODER} {ADAM} n_action_pred_token action_chunk_size "
            "n_vqvae_training_steps vqvae_n_embed vqvae_embedding_dim vqvae_enc_hidden_dim "
            "gpt_block_size gpt_input_dim gpt_output_dim gpt_n_layer gpt_n_head gpt_hidden_dim "
            "dropout offset_loss_weight primary_code_loss_weight secondary_code_loss_weight "
            "bet_softmax_temperature sequentially_select optimizer_vqvae_lr "
            "optimizer_vqvae_weight_decay",
            module="vqbet.",
        ),
        Kind("bc", {}, {**STATE, **ENV}, heeds=None),
    )
}


def exists(kind: Kind) -> bool:
    """Tell whether the type can be imported."""
    return importlib.util.find_spec(f"leray.algorithms.{kind.name}.policy") is not None


def stats_of(features: Features, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Return random statistics of all sorts, and of a feature no policy reads."""
    rng = np.random.default_rng(seed)
    stats = {}
    for name, feature in [*features.items(), ("timestamp", Feature("float32", (1,)))]:
        shape = (feature.shape[2], 1, 1) if len(feature.shape) == 3 else feature.shape
        low = rng.uniform(-2, -1, shape)
        stats[name] = {
            "min": low,
            "q01": low + 0.1,
            "q10": low + 0.2,
            "mean": low + 1,
            "q90": low + 2.8,
            "q99": low + 2.9,
            "max": low + 3,
            "std": rng.uniform(0.5, 2, shape),
            "count": np.array([123]),
        }
    return stats


def make_policy(
    kind: Kind, features: Features | None = None, seed: int = 0, **options: Any
) -> ImitationPolicy:
    """Build a small policy with fresh weights."""
    features = kind.features if features is None else features
    cls = policy_class(kind.name)
    config = cls.config_class(**{**kind.options, **options})
    processor = cls.make_processor(features, config, stats_of(features), use_imagenet_stats=False)
    torch.manual_seed(seed)
    return cls(config, processor)


def observe(features: Features, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random observations of so many environments."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, (count, *feature.shape), dtype=np.uint8)
        if feature.dtype == "uint8"
        else rng.uniform(-1, 1, (count, *feature.shape)).astype(np.float32)
        for name, feature in features.items()
        if name != ACTION
    }


def batch_for(policy: ImitationPolicy, size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a random batch of raw windows; the last two actions of the first are padding."""
    config, rng = policy.config, np.random.default_rng(seed)
    steps = config.observation_delta_indices
    batch = {
        name: values if steps is None else np.stack([values] * len(steps), 1)
        for name, values in observe(policy.features, size, seed).items()
    }
    shape = (size, len(config.action_delta_indices), *policy.features[ACTION].shape)
    batch[ACTION] = rng.uniform(-1, 1, shape).astype(np.float32)
    batch["action_is_pad"] = np.zeros(shape[:2], bool)
    batch["action_is_pad"][0, -2:] = shape[1] > 2
    return batch
