"""Options of Diffusion Policy, with LeRobot's names and defaults (0.4.4)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from leray.algorithms.config import TRAINING_ONLY, PolicyConfig, require
from leray.algorithms.imitation.config import BACKBONES, ImitationPolicyConfig, OptimizerPreset

FINAL_GROUPS = 8
"""Groups of channels that the U-Net's last layer normalises, whatever `n_groups` is."""

_COUNTS = (
    "horizon",
    "n_action_steps",
    "spatial_softmax_num_keypoints",
    "n_groups",
    "num_train_timesteps",
)
_CHOICES = {
    "vision_backbone": BACKBONES,
    "noise_scheduler_type": ("DDPM", "DDIM"),
    "beta_schedule": ("squaredcos_cap_v2", "linear", "scaled_linear"),
    "prediction_type": ("epsilon", "sample"),
    "scheduler_name": ("cosine", "linear", "constant_with_warmup", "constant"),
}


@PolicyConfig.register_subclass("diffusion")
@dataclass(kw_only=True)
class DiffusionPolicyConfig(ImitationPolicyConfig):
    """Diffusion Policy: what it sees, the networks, the noise, and how it is optimised."""

    policy_path: ClassVar[str] = "leray.algorithms.diffusion.policy:DiffusionPolicy"
    algorithm_path: ClassVar[str] = "leray.algorithms.diffusion.algorithm:DiffusionConfig"

    n_obs_steps: int = 2
    """Observations the policy looks at: the present one and those before it."""
    horizon: int = 16
    """Actions that are denoised together; the first is that of the oldest observation."""
    n_action_steps: int = 8
    """Actions of them that are taken, from the present on, before the next are denoised."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    )
    """How each type of feature is normalised: IDENTITY, MEAN_STD, MIN_MAX, QUANTILES (q01 to q99)
    or QUANTILE10 (q10 to q90)."""
    drop_n_last_frames: int = 7
    """Frames at the end of each episode that are no training samples of their own; with horizon -
    n_action_steps - n_obs_steps + 1 of them, no action that is taken was padded in training."""
    vision_backbone: str = "resnet18"
    """Kind of ResNet that pictures are encoded with."""
    resize_shape: tuple[int, int] | None = None
    """Height and width that pictures are resized to first; `null` leaves them."""
    crop_ratio: float = 1.0
    """Share of `resize_shape` that is cut out of the resized pictures; 1 cuts nothing."""
    crop_shape: tuple[int, int] | None = None
    """Height and width that are cut out of pictures; `null` cuts nothing. Where there is a
    `resize_shape`, `crop_ratio` alone decides."""
    crop_is_random: bool = True
    """Cut at random places while training; when acting it is always the centre."""
    pretrained_backbone_weights: str | None = None
    """Weights the ResNets start from, as `ResNet18_Weights.IMAGENET1K_V1`; needs
    `use_group_norm=false`."""
    use_group_norm: bool = True
    """Normalise groups of 16 channels in the ResNets instead of the batch."""
    spatial_softmax_num_keypoints: int = 32
    """Keypoints that each picture becomes."""
    use_separate_rgb_encoder_per_camera: bool = False
    """Give each camera a ResNet of its own."""
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    """Channels of each stage of the U-Net; each but the last halves the time steps."""
    kernel_size: int = 5
    """Time steps that a convolution of the U-Net sees."""
    n_groups: int = 8
    """Groups of channels that the U-Net normalises; its last layer always has 8."""
    diffusion_step_embed_dim: int = 128
    """Size of the embedding of the diffusion step."""
    use_film_scale_modulation: bool = True
    """Let observations scale the features of the U-Net, and not only shift them."""
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"
    """How actions are denoised: DDPM draws noise in each step, DDIM does not."""
    num_train_timesteps: int = 100
    """Steps from an action to pure noise."""
    beta_schedule: str = "squaredcos_cap_v2"
    """How the noise grows over the steps: `squaredcos_cap_v2`, `linear` or `scaled_linear`."""
    beta_start: float = 0.0001
    """Variance that the first step adds; not for `squaredcos_cap_v2`."""
    beta_end: float = 0.02
    """Variance that the last step adds; not for `squaredcos_cap_v2`."""
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    """What the U-Net tells: the noise, or the actions without it."""
    clip_sample: bool = True
    """Clip the denoised actions in each step, in normalised units."""
    clip_sample_range: float = 1.0
    """Largest magnitude that is left."""
    num_inference_steps: int | None = None
    """Steps of denoising when acting; `null` takes all `num_train_timesteps`."""
    compile_model: bool = field(default=False, metadata=TRAINING_ONLY)
    """Compile the U-Net with `torch.compile`, where there is a compiler for the device."""
    compile_mode: str = field(default="reduce-overhead", metadata=TRAINING_ONLY)
    """Mode of `torch.compile`."""
    do_mask_loss_for_padding: bool = False
    """Leave out of the loss the actions that are copies of an episode's last one."""
    optimizer_lr: float = 1e-4
    """Learning rate of Adam."""
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    """Decay of Adam's averages of the gradient and of its square."""
    optimizer_eps: float = 1e-8
    """What Adam adds to the denominator."""
    optimizer_weight_decay: float = 1e-6
    """Weight of the squared parameters in the loss, times two."""
    scheduler_name: str = "cosine"
    """How the learning rate goes on after the warm-up: `cosine` and `linear` fall to 0,
    `constant_with_warmup` stays; `constant` stays from the start."""
    scheduler_warmup_steps: int = 500
    """Updates over which the learning rate rises from 0."""

    def __post_init__(self) -> None:
        """Check ranges and what must fit together."""
        super().__post_init__()
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"--policy.{name}={value}: allowed are {', '.join(choices)}")
        for name in _COUNTS:
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        for name in ("drop_n_last_frames", "scheduler_warmup_steps"):
            value = getattr(self, name)
            require(value >= 0, f"--policy.{name}={value}: give a whole number >= 0")
        for name in ("optimizer_lr", "clip_sample_range"):
            value = getattr(self, name)
            require(value > 0, f"--policy.{name}={value}: give a number > 0")
        self._check_times()
        self._check_unet()
        self._check_pictures()

    def _check_times(self) -> None:
        most = self.horizon - self.n_obs_steps + 1
        require(
            self.n_action_steps <= most,
            f"--policy.n_action_steps={self.n_action_steps}: give at most horizon - n_obs_steps "
            f"+ 1 = {most}",
        )
        steps = self.num_inference_steps
        require(
            steps is None or 1 <= steps <= self.num_train_timesteps,
            f"--policy.num_inference_steps={steps}: give 1 to num_train_timesteps="
            f"{self.num_train_timesteps}, or null",
        )

    def _check_unet(self) -> None:
        dims, factor = self.down_dims, 2 ** len(self.down_dims)
        require(
            len(dims) > 0 and all(dim > 0 and dim % self.n_groups == 0 for dim in dims),
            f"--policy.down_dims={list(dims)}: give at least one width, each a multiple of "
            f"n_groups={self.n_groups}",
        )
        require(
            dims[0] % FINAL_GROUPS == 0,
            f"--policy.down_dims={list(dims)}: give a multiple of {FINAL_GROUPS} first",
        )
        require(
            self.horizon % factor == 0,
            f"--policy.horizon={self.horizon}: give a multiple of {factor}, which is 2 to the "
            f"power of the number of down_dims",
        )
        require(
            self.kernel_size >= 1 and self.kernel_size % 2 == 1,
            f"--policy.kernel_size={self.kernel_size}: give an odd number >= 1",
        )
        size = self.diffusion_step_embed_dim
        require(
            size >= 4 and size % 2 == 0,
            f"--policy.diffusion_step_embed_dim={size}: give an even number >= 4",
        )

    def _check_pictures(self) -> None:
        ratio = self.crop_ratio
        require(0 < ratio <= 1, f"--policy.crop_ratio={ratio}: give a number above 0, up to 1")
        if self.resize_shape is not None:
            height, width = (int(size * ratio) for size in self.resize_shape)
            self.crop_shape = (height, width) if ratio < 1 else None
        for name in ("resize_shape", "crop_shape"):
            shape = getattr(self, name)
            require(
                shape is None or min(shape) >= 1,
                f"--policy.{name}={shape}: give a height and a width >= 1, or null",
            )
        require(
            not (self.pretrained_backbone_weights and self.use_group_norm),
            f"--policy.pretrained_backbone_weights={self.pretrained_backbone_weights}: these were "
            "trained with batch normalisation; give --policy.use_group_norm=false too",
        )

    @property
    def observation_delta_indices(self) -> list[int]:
        """The last `n_obs_steps` frames, up to the present one."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Frames from that of the oldest observation on."""
        start = 1 - self.n_obs_steps
        return list(range(start, start + self.horizon))

    @property
    def optimizer(self) -> OptimizerPreset:
        """Adam; weight decay is part of its gradient."""
        return OptimizerPreset(
            type="adam",
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def lr_factor(self, update: int, total_updates: int) -> float:
        """Return what the learning rate is multiplied with: a linear rise from 0, then a fall.

        The numbers are those of diffusers' schedules of these names: the very first update has
        the learning rate 0.
        """
        warmup = self.scheduler_warmup_steps
        if self.scheduler_name == "constant":
            return 1.0
        if update < warmup:
            return update / warmup
        done = (update - warmup) / max(1, total_updates - warmup)
        if self.scheduler_name == "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
        return max(0.0, 1 - done) if self.scheduler_name == "linear" else 1.0
