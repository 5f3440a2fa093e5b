"""Options that all imitation policies have, and what training needs to know of each."""

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar

from leray.algorithms.config import TRAINING_ONLY, PolicyConfig, require

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""What `vision_backbone` may be; the networks are in `networks/resnet.py`."""


@dataclass(kw_only=True)
class ImageTransformsConfig:
    """Random changes of training pictures, with LeRobot's names and ranges."""

    enable: bool = False
    """Change pictures at all."""
    max_num_transforms: int = 3
    """Kinds of change each picture gets, at most; the weights below draw which."""
    random_order: bool = False
    """Apply them in random order instead of the one below."""
    brightness: tuple[float, float] = (0.8, 1.2)
    """Range of the factor brightness is multiplied with."""
    contrast: tuple[float, float] = (0.8, 1.2)
    """Range of the factor the distance from the mean grey is multiplied with."""
    saturation: tuple[float, float] = (0.5, 1.5)
    """Range of the factor the distance from the grey picture is multiplied with."""
    hue: tuple[float, float] = (-0.05, 0.05)
    """Range of the turn of the colour wheel, in turns."""
    sharpness: tuple[float, float] = (0.5, 1.5)
    """Range of the factor the distance from the blurred picture is multiplied with."""
    affine: tuple[float, float] = (-5.0, 5.0)
    """Range of the turn of the picture, in degrees."""
    translate: tuple[float, float] = (0.05, 0.05)
    """Largest shift of a picture that is turned, as shares of its width and height."""
    weights: dict[str, float] = field(default_factory=dict)
    """How often each kind is drawn, by its name; 1 where nothing is said."""

    def __post_init__(self) -> None:
        """Check ranges."""
        kinds = ("brightness", "contrast", "saturation", "hue", "sharpness", "affine")
        limits = {"hue": (-0.5, 0.5), "affine": (-180.0, 180.0)}
        for name in kinds:
            low, high = getattr(self, name)
            least, most = limits.get(name, (0.0, float("inf")))
            require(
                least <= low <= high <= most,
                f"--dataset.image_transforms.{name}={low},{high}: give a range within {least} and "
                f"{most}",
            )
        require(
            all(0 <= share <= 1 for share in self.translate),
            f"--dataset.image_transforms.translate={self.translate}: give two numbers from 0 to 1",
        )
        require(
            self.max_num_transforms >= 1,
            f"--dataset.image_transforms.max_num_transforms={self.max_num_transforms}: give a "
            "whole number >= 1",
        )
        if unknown := sorted(self.weights.keys() - set(kinds)):
            require(
                condition=False,
                message=f"--dataset.image_transforms.weights has {unknown[0]!r}: allowed are "
                f"{', '.join(kinds)}",
            )


@dataclass(kw_only=True)
class OptimizerPreset:
    """How a policy is optimised unless the run says otherwise; names and defaults are LeRobot's."""

    type: str
    """`adam` or `adamw`."""
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 10.0
    """Largest norm of the gradient; 0 does not clip."""


@dataclass(kw_only=True)
class ImitationPolicyConfig(PolicyConfig, abc.ABC):
    """What every imitation policy has; fields marked `TRAINING_ONLY` are not in `config.json`."""

    default_batch_size: ClassVar[int] = 64
    learns_online: ClassVar[bool] = False
    reads_pictures: ClassVar[bool] = True

    n_obs_steps: int = 1
    """Observations the policy looks at: the present one and those before it."""
    use_amp: bool = False
    """Compute in bfloat16 where torch's autocast allows; weights stay float32."""
    pretrained_backbone_path: str | None = field(default=None, metadata=TRAINING_ONLY)
    """Where the weights are that a vision backbone starts from: a file (.safetensors, or
    torchvision's .pth) or a repo on the Hub. `null` looks in torch's cache, then on the Hub."""
    ema_decay: float | None = field(default=None, metadata=TRAINING_ONLY)
    """Act with a moving average of the weights, which decays so much per update at most; `null`
    acts with the weights themselves."""
    gradient_accumulation_steps: int = field(default=1, metadata=TRAINING_ONLY)
    """Batches whose gradients are summed for one update."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("n_obs_steps", "gradient_accumulation_steps"):
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        decay = self.ema_decay
        require(
            decay is None or 0 < decay < 1,
            f"--policy.ema_decay={decay}: give a number between 0 and 1, or null",
        )

    @property
    def batches_per_update(self) -> int:
        """Batches that each update takes."""
        return self.gradient_accumulation_steps

    @property
    @abc.abstractmethod
    def observation_delta_indices(self) -> list[int] | None:
        """Frames around the present one that observations are taken at; None for that one only."""

    @property
    @abc.abstractmethod
    def action_delta_indices(self) -> list[int]:
        """Frames around the present one that actions are taken at."""

    @property
    def drop_n_last_frames(self) -> int:
        """Frames at the end of each episode that are no training samples of their own."""
        return 0

    @property
    @abc.abstractmethod
    def optimizer(self) -> OptimizerPreset:
        """The preset of the optimiser."""

    def lr_factor(self, update: int, total_updates: int) -> float:
        """Return what each learning rate is multiplied with at an update, counted from 0."""
        return 1.0

    def dataset_windows(self, features: Any, fps: float) -> dict[str, list[float]]:
        """Return `delta_timestamps` in seconds for the features that have a time axis.

        Args:
            features: names of the policy's features.
            fps: frames per second of the dataset.
        """
        past, ahead = self.observation_delta_indices, self.action_delta_indices
        windows = {}
        for name in features:
            indices = ahead if name.startswith("action") else past
            if indices is not None:
                windows[name] = [index / fps for index in indices]
        return windows
