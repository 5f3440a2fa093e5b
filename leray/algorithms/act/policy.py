"""The ACT policy: loss, prediction, and the play of its chunks."""

from typing import Any

import torch
from torch import Tensor

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.act.ensemble import TemporalEnsemble
from leray.algorithms.act.losses import divergence, reconstruction_loss
from leray.algorithms.act.networks import ACTNetwork
from leray.algorithms.imitation.inputs import Batch
from leray.algorithms.imitation.policy import ImitationModel, ImitationPolicy
from leray.algorithms.imitation.queues import Actions
from leray.data.features import Features
from leray.data.names import ACTION, PAD_SUFFIX

BACKBONE = "model.backbone."


class ACTModel(ImitationModel):
    """ACT's networks with their loss.

    Args:
        config: the policy's options.
        features: of the policy.

    Raises:
        FeatureMismatchError: ACT cannot work with such features.
    """

    def __init__(self, config: ACTPolicyConfig, features: Features) -> None:
        super().__init__()
        self.config = config
        self.model = ACTNetwork(config, features)

    def loss(self, batch: Batch, noise: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return `l1`, or `l1 + kl_weight * kl`, and these parts (Zhao et al. 2023, algorithm 1).

        Args:
            batch: observations, `action` [B, K, A] and `action_is_pad` [B, K].
            noise: what the latent variable is drawn with, standard normal [B, latent_dim]; None
                draws it.
        """
        if not self.config.use_vae:
            return self._parts(batch, None)
        mean, log_variance = self.model.posterior(batch)
        noise = torch.randn_like(mean) if noise is None else noise
        loss, figures = self._parts(batch, mean + (log_variance / 2).exp() * noise)
        kl = divergence(mean, log_variance)
        return loss + self.config.kl_weight * kl, figures | {"kl": kl.detach()}

    def _parts(self, batch: Batch, latent: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.model(batch, latent)
        l1 = reconstruction_loss(predicted, batch[ACTION], batch[ACTION + PAD_SUFFIX])
        return l1, {"l1": l1.detach()}

    def predict(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the chunk [B, chunk_size, A] for the latent variable's mean; nothing is drawn."""
        chunk: Tensor = self.model(batch)
        return chunk

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone, with its own learning rate, after all else; it may be empty."""
        backbone: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                (backbone if name.startswith(BACKBONE) else rest).append(parameter)
        return [{"params": rest}, {"params": backbone, "lr": self.config.optimizer_lr_backbone}]


class ACTPolicy(ImitationPolicy):
    """Action chunking with transformers (Zhao et al. 2023, arXiv 2304.13705)."""

    config_class = ACTPolicyConfig

    def make_model(self) -> ACTModel:
        """Return the networks, with fresh weights."""
        return ACTModel(self.config, self.processor.features)

    def make_actions(self) -> Actions:
        """Return what plays the chunks: in turn, or the average of all that overlap."""
        coeff = self.config.temporal_ensemble_coeff
        if coeff is None:
            return super().make_actions()
        return TemporalEnsemble(coeff, self.config.chunk_size)
