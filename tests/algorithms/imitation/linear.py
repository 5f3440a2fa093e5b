"""The smallest imitation policy: a linear map from the state to a chunk of actions."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from leray.algorithms.config import TRAINING_ONLY, PolicyConfig
from leray.algorithms.imitation.config import ImitationPolicyConfig, OptimizerPreset
from leray.algorithms.imitation.policy import ImitationModel, ImitationPolicy
from leray.data.names import ACTION, OBSERVATION_STATE

IMAGES = "observation.images."


@PolicyConfig.register_subclass("test_linear")
@dataclass(kw_only=True)
class LinearPolicyConfig(ImitationPolicyConfig):
    """Options of the linear policy."""

    policy_path: ClassVar[str] = f"{__name__}:LinearPolicy"
    algorithm_path: ClassVar[str] = "tests.algorithms.imitation.linear_algorithm:LinearConfig"
    default_batch_size: ClassVar[int] = 8

    chunk_size: int = 3
    """Actions per chunk."""
    dropout: float = 0.0
    """Share of inputs dropped in training."""
    drop_last: int = 0
    """Frames at each episode's end that are no samples."""
    counts: bool = False
    """Whether the model counts its updates."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {"STATE": "MEAN_STD", "ACTION": "MEAN_STD", "VISUAL": "MEAN_STD"}
    )
    """How each type of feature is normalised."""
    optimizer_type: str = field(default="adamw", metadata=TRAINING_ONLY)
    """Kind of optimiser."""
    optimizer_lr: float = field(default=1e-2, metadata=TRAINING_ONLY)
    """Learning rate of the weights."""
    optimizer_lr_bias: float = field(default=2e-2, metadata=TRAINING_ONLY)
    """Learning rate of the bias."""
    optimizer_betas: tuple[float, float] = field(default=(0.9, 0.99), metadata=TRAINING_ONLY)
    """Decay of the moments."""
    optimizer_weight_decay: float = field(default=0.1, metadata=TRAINING_ONLY)
    """Decay of the weights."""
    grad_clip_norm: float = field(default=10.0, metadata=TRAINING_ONLY)
    """Largest norm of the gradient."""
    falling: bool = field(default=False, metadata=TRAINING_ONLY)
    """Whether the learning rate falls to 0."""

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def n_action_steps(self) -> int:
        return self.chunk_size

    @property
    def drop_n_last_frames(self) -> int:
        return self.drop_last

    @property
    def optimizer(self) -> OptimizerPreset:
        return OptimizerPreset(
            type=self.optimizer_type,
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.grad_clip_norm,
        )

    def lr_factor(self, update: int, total_updates: int) -> float:
        return 1 - update / total_updates if self.falling else 1.0


class LinearModel(ImitationModel):
    """Two parameter groups, one parameter that never gets a gradient, and a buffer that learns."""

    def __init__(self, config: LinearPolicyConfig, features: Any) -> None:
        super().__init__()
        self.config, self.size = config, features[ACTION].size
        self.linear = nn.Linear(features[OBSERVATION_STATE].size, config.chunk_size * self.size)
        self.dropout = nn.Dropout(config.dropout)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("mean_state", torch.zeros(features[OBSERVATION_STATE].size))
        self.updates_seen: list[int] = []

    def forward(self, state):
        return self.linear(self.dropout(state)).view(len(state), -1, self.size)

    def loss(self, batch):
        state, action = batch[OBSERVATION_STATE], batch[ACTION]
        if self.training and self.config.counts:
            self.mean_state.lerp_(state.mean(0), 0.5)
        error = (self(state) - action) * ~batch["action_is_pad"].unsqueeze(-1)
        shift = torch.rand((), device=state.device) if self.config.dropout else 0.0
        l2 = error.square().mean()
        shades = {name: batch[name].mean() for name in batch if name.startswith(IMAGES)}
        return l2 + shift, {"l2": l2, "first": error[:, 0].square().mean(), **shades}

    def predict(self, batch, generator):
        return self(batch[OBSERVATION_STATE])

    def parameter_groups(self):
        bias = {"params": [self.linear.bias], "lr": self.config.optimizer_lr_bias}
        return [{"params": [self.linear.weight, self.unused]}, bias]

    def synchronized(self):
        return [self.mean_state]

    def after_update(self, num_updates: int) -> None:
        self.updates_seen.append(num_updates)


class LinearPolicy(ImitationPolicy):
    """It reads pictures only to say how bright they are."""

    config_class = LinearPolicyConfig

    def make_model(self) -> LinearModel:
        return LinearModel(self.config, self.features)
