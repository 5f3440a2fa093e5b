"""Options of VQ-BeT, named as in LeRobot."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from leray.algorithms.config import PolicyConfig, require
from leray.algorithms.imitation.config import BACKBONES, ImitationPolicyConfig, OptimizerPreset


@PolicyConfig.register_subclass("vqbet")
@dataclass(kw_only=True)
class VQBeTPolicyConfig(ImitationPolicyConfig):
    """Behaviour transformer over codes of action chunks (VQ-BeT; Lee et al. 2024).

    Training has two phases: a residual VQ-VAE learns codes of action chunks, then a transformer
    learns to predict codes, and how far the actions are from what the codes say.

    LeRobot reads a policy of exactly one picture and `observation.state`. Ours also learns from
    `observation.environment_state`, from several pictures and from none; LeRobot does not load
    those folders.
    """

    policy_path: ClassVar[str] = "leray.algorithms.vqbet.policy:VQBeTPolicy"
    algorithm_path: ClassVar[str] = "leray.algorithms.vqbet.algorithm:VQBeTConfig"

    n_obs_steps: int = 5
    """Observations the policy looks at: the present one and those before it."""
    n_action_pred_token: int = 3
    """Chunks predicted from the present frame on, each one frame later than the one before; only
    the first is played."""
    action_chunk_size: int = 5
    """Actions of a chunk; all of them are played."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {
            "VISUAL": "IDENTITY",
            "STATE": "MIN_MAX",
            "ENV": "MIN_MAX",
            "ACTION": "MIN_MAX",
        }
    )
    """How each type of feature is normalised: IDENTITY, MEAN_STD, MIN_MAX, QUANTILES (q01 to q99)
    or QUANTILE10 (q10 to q90)."""
    vision_backbone: str = "resnet18"
    """Kind of ResNet that reads pictures."""
    crop_shape: tuple[int, int] | None = (84, 84)
    """Height and width that is cut out of each picture; `null` takes all of it."""
    crop_is_random: bool = True
    """Cut at a random place while training; always in the centre otherwise."""
    pretrained_backbone_weights: str | None = None
    """Weights the ResNet starts from; needs `use_group_norm=false`. `null` starts from scratch."""
    use_group_norm: bool = True
    """Normalise groups of channels in the ResNet instead of the batch."""
    spatial_softmax_num_keypoints: int = 32
    """Points that a picture becomes."""
    n_vqvae_training_steps: int = 20000
    """Updates of the first phase, which learns the codes; the rest of training is the second."""
    vqvae_n_embed: int = 16
    """Codes of each of the two levels."""
    vqvae_embedding_dim: int = 256
    """Length of the vector that a code stands for."""
    vqvae_enc_hidden_dim: int = 128
    """Width of the hidden layers of the VQ-VAE's encoder and decoder."""
    gpt_block_size: int = 500
    """Longest sequence of tokens the transformer has positions for."""
    gpt_input_dim: int = 512
    """Length of a token: an observation or a query for actions."""
    gpt_output_dim: int = 512
    """Length of what the transformer returns for a token."""
    gpt_n_layer: int = 8
    """Blocks of the transformer."""
    gpt_n_head: int = 8
    """Attention heads of each block."""
    gpt_hidden_dim: int = 512
    """Width of the transformer."""
    dropout: float = 0.1
    """Share of the transformer's activations that are dropped while training."""
    offset_loss_weight: float = 10000.0
    """Weight of the loss of the predicted actions."""
    primary_code_loss_weight: float = 5.0
    """Weight of the loss of the first level's codes."""
    secondary_code_loss_weight: float = 0.5
    """Weight of the loss of the second level's codes."""
    bet_softmax_temperature: float = 0.1
    """Temperature at which codes are drawn; the lower, the more often the likeliest one."""
    sequentially_select: bool = False
    """Predict the second level's code with knowledge of the first level's, instead of both at
    once."""
    optimizer_lr: float = 1e-4
    """Adam learning rate of all but the VQ-VAE."""
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    """Adam's decay of the means of gradients and of their squares."""
    optimizer_eps: float = 1e-8
    """Adam's epsilon."""
    optimizer_weight_decay: float = 1e-6
    """Weight decay of all but the VQ-VAE, and of the transformer's matrices only."""
    optimizer_vqvae_lr: float = 1e-3
    """Adam learning rate of the VQ-VAE."""
    optimizer_vqvae_weight_decay: float = 1e-4
    """Weight decay of the VQ-VAE."""
    scheduler_warmup_steps: int = 500
    """Updates of the second phase over which its learning rate rises from 0."""

    def __post_init__(self) -> None:
        """Check ranges and what must fit together."""
        super().__post_init__()
        counts = (
            *("n_action_pred_token", "action_chunk_size", "spatial_softmax_num_keypoints"),
            *("n_vqvae_training_steps", "vqvae_n_embed", "vqvae_embedding_dim"),
            *("vqvae_enc_hidden_dim", "gpt_block_size", "gpt_input_dim", "gpt_output_dim"),
            *("gpt_n_layer", "gpt_n_head", "gpt_hidden_dim"),
        )
        for name in counts:
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        for name in ("bet_softmax_temperature", "optimizer_lr", "optimizer_vqvae_lr"):
            value = getattr(self, name)
            require(value > 0, f"--policy.{name}={value}: give a number > 0")
        weights = ("offset_loss_weight", "primary_code_loss_weight", "secondary_code_loss_weight")
        decays = ("optimizer_weight_decay", "optimizer_vqvae_weight_decay")
        for name in (*weights, *decays, "scheduler_warmup_steps"):
            value = getattr(self, name)
            require(value >= 0, f"--policy.{name}={value}: give a number >= 0")
        require(
            0 <= self.dropout < 1,
            f"--policy.dropout={self.dropout}: give a number from 0 to below 1",
        )
        require(
            self.gpt_hidden_dim % self.gpt_n_head == 0,
            f"--policy.gpt_hidden_dim={self.gpt_hidden_dim}: give a multiple of "
            f"--policy.gpt_n_head={self.gpt_n_head}",
        )
        self._check_pictures()

    def _check_pictures(self) -> None:
        require(
            self.vision_backbone in BACKBONES,
            f"--policy.vision_backbone={self.vision_backbone}: allowed are {', '.join(BACKBONES)}",
        )
        require(
            self.crop_shape is None or min(self.crop_shape) >= 1,
            f"--policy.crop_shape={self.crop_shape}: give height and width in pixels, or null",
        )
        require(
            not (self.use_group_norm and self.pretrained_backbone_weights),
            f"--policy.pretrained_backbone_weights={self.pretrained_backbone_weights}: pretrained "
            "ResNets normalise batches, so give --policy.use_group_norm=false too",
        )

    @property
    def num_queries(self) -> int:
        """Chunks predicted per sample: one from each observed frame on, and the future ones."""
        return self.n_obs_steps + self.n_action_pred_token - 1

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames around the present one that observations are taken at."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Frames around the present one that actions are taken at: all that chunks cover."""
        return list(
            range(1 - self.n_obs_steps, self.n_action_pred_token + self.action_chunk_size - 1)
        )

    @property
    def optimizer(self) -> OptimizerPreset:
        """The preset of the optimiser."""
        return OptimizerPreset(
            type="adam",
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def lr_factor(self, update: int, total_updates: int) -> float:
        """Return 1 in the first phase; then a linear rise, and the first part of a cosine's fall.

        As in LeRobot, the cosine is as long as the whole run: it does not come to its end.
        """
        update -= self.n_vqvae_training_steps
        if update < 0:
            return 1.0
        if update < self.scheduler_warmup_steps:
            return update / self.scheduler_warmup_steps
        length = max(1, total_updates - self.scheduler_warmup_steps)
        progress = (update - self.scheduler_warmup_steps) / length
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
