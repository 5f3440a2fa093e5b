"""Options of ACT, with LeRobot's names and defaults."""

from dataclasses import dataclass, field
from typing import ClassVar

from leray.algorithms.config import PolicyConfig, require
from leray.algorithms.imitation.config import BACKBONES, ImitationPolicyConfig, OptimizerPreset

ACTIVATIONS = ("relu", "gelu")
DILATABLE = BACKBONES[2:]
"""Backbones that have a dilated form."""


@PolicyConfig.register_subclass("act")
@dataclass(kw_only=True)
class ACTPolicyConfig(ImitationPolicyConfig):
    """Action chunking with transformers: chunks, networks, loss and optimiser."""

    policy_path: ClassVar[str] = "leray.algorithms.act.policy:ACTPolicy"
    algorithm_path: ClassVar[str] = "leray.algorithms.act.algorithm:ACTConfig"

    chunk_size: int = 100
    """Actions that are predicted at once."""
    n_action_steps: int = 100
    """Actions of a chunk that are played before the next one is predicted."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    )
    """How each type of feature (VISUAL, STATE, ENV, ACTION) is normalised: IDENTITY, MEAN_STD,
    MIN_MAX, QUANTILES (q01 to q99) or QUANTILE10 (q10 to q90); a missing type stays as it is."""
    vision_backbone: str = "resnet18"
    """Network that reads pictures: resnet18, resnet34, resnet50, resnet101 or resnet152."""
    pretrained_backbone_weights: str | None = "ResNet18_Weights.IMAGENET1K_V1"
    """Weights that the vision backbone starts from; `null` starts from random ones."""
    replace_final_stride_with_dilation: int = 0  # a number in LeRobot's files, not true or false
    """1 keeps twice the resolution in the last stage of the backbone; resnet50 and larger."""
    pre_norm: bool = False
    """Normalise the input of each part of a transformer layer instead of its output."""
    dim_model: int = 512
    """Width of the transformers."""
    n_heads: int = 8
    """Attention heads of each layer."""
    dim_feedforward: int = 3200
    """Width of the hidden layer in each feed-forward part."""
    feedforward_activation: str = "relu"
    """Activation of the feed-forward parts: relu or gelu."""
    n_encoder_layers: int = 4
    """Layers that read the observation."""
    n_decoder_layers: int = 1
    """Layers that write the actions."""
    use_vae: bool = True
    """Train with a latent variable that tells how the demonstrator acted; acting takes its mean."""
    latent_dim: int = 32
    """Size of the latent variable."""
    n_vae_encoder_layers: int = 4
    """Layers that read the demonstrated actions into the latent variable."""
    temporal_ensemble_coeff: float | None = None
    """Predict at every step and average all predictions for it, weighted by exp(-coeff * i) with
    the oldest first; 0.01 is usual. Needs n_action_steps=1; `null` plays chunks."""
    dropout: float = 0.1
    """Share of activations that training drops in the transformers."""
    kl_weight: float = 10.0
    """Weight of the latent variable's divergence from a standard normal in the loss."""
    optimizer_lr: float = 1e-5
    """AdamW learning rate."""
    optimizer_weight_decay: float = 1e-4
    """AdamW weight decay."""
    optimizer_lr_backbone: float = 1e-5
    """AdamW learning rate of the vision backbone."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        super().__post_init__()
        self._check_chunks()
        self._check_networks()
        for name in ("optimizer_lr", "optimizer_lr_backbone", "optimizer_weight_decay"):
            value = getattr(self, name)
            require(value >= 0, f"--policy.{name}={value}: give a number >= 0")
        weight = self.kl_weight
        require(weight >= 0, f"--policy.kl_weight={weight}: give a number >= 0")

    def _check_chunks(self) -> None:
        require(
            self.n_obs_steps == 1, f"--policy.n_obs_steps={self.n_obs_steps}: ACT allows only 1"
        )
        played, size = self.n_action_steps, self.chunk_size
        require(size >= 1, f"--policy.chunk_size={size}: give a whole number >= 1")
        require(
            1 <= played <= size,
            f"--policy.n_action_steps={played}: give 1 to chunk_size={size}",
        )
        coeff = self.temporal_ensemble_coeff
        require(
            coeff is None or played == 1,
            f"--policy.n_action_steps={played}: it must be 1 with "
            f"--policy.temporal_ensemble_coeff={coeff}, which predicts at every step",
        )

    def _check_networks(self) -> None:
        counts = ("n_heads", "dim_feedforward", "n_encoder_layers", "n_decoder_layers")
        for name in (*counts, "latent_dim", "n_vae_encoder_layers"):
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        width, heads = self.dim_model, self.n_heads
        require(
            width >= 4 and width % 4 == 0 and width % heads == 0,
            f"--policy.dim_model={width}: give a multiple of 4 and of n_heads={heads}",
        )
        require(
            self.feedforward_activation in ACTIVATIONS,
            f"--policy.feedforward_activation={self.feedforward_activation}: allowed are "
            f"{', '.join(ACTIVATIONS)}",
        )
        require(0 <= self.dropout < 1, f"--policy.dropout={self.dropout}: give 0 to below 1")
        kind = self.vision_backbone
        require(
            kind in BACKBONES,
            f"--policy.vision_backbone={kind}: allowed are {', '.join(BACKBONES)}",
        )
        dilation = self.replace_final_stride_with_dilation
        require(
            dilation == 0 or (dilation == 1 and kind in DILATABLE),
            f"--policy.replace_final_stride_with_dilation={dilation}: give 0, or 1 with "
            f"--policy.vision_backbone one of {', '.join(DILATABLE)}",
        )

    @property
    def observation_delta_indices(self) -> None:
        """The present frame only."""
        return

    @property
    def action_delta_indices(self) -> list[int]:
        """The present frame and those after it."""
        return list(range(self.chunk_size))

    @property
    def optimizer(self) -> OptimizerPreset:
        """AdamW; the backbone has its own learning rate."""
        return OptimizerPreset(
            type="adamw", lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay
        )
