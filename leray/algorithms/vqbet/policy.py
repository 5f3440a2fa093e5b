"""VQ-BeT: draws codes of action chunks, learned in two phases."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from leray.algorithms.imitation.inputs import Batch, RawBatch
from leray.algorithms.imitation.policy import ImitationModel, ImitationPolicy
from leray.algorithms.imitation.queues import ActionQueues, Actions
from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.losses import focal_loss, quantization_loss
from leray.algorithms.vqbet.networks import VQBeTNetwork
from leray.data.features import Features
from leray.data.names import ACTION

Loss = tuple[Tensor, dict[str, Tensor]]


class VQBeT(ImitationModel):
    """The network of VQ-BeT and its two losses.

    Args:
        config: the policy's options.
        features: observations and action.
    """

    def __init__(self, config: VQBeTPolicyConfig, features: Features) -> None:
        super().__init__()
        self.config = config
        self.vqbet = VQBeTNetwork(config, features)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of the present phase, and figures; masks of padding are not heeded.

        In the first phase only the VQ-VAE gets gradients, in the second all but the VQ-VAE.
        """
        chunks = self.vqbet.chunks(batch[ACTION])
        if not self.vqbet.action_head.vqvae_model.frozen:
            return self._quantization_loss(chunks)
        return self._prediction_loss(batch, chunks)

    def predict(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the chunk drawn for the newest observation, [B, action_chunk_size, A]."""
        steps, queries = self.config.n_obs_steps, self.config.num_queries
        if steps == 1:
            batch = {name: values.unsqueeze(1) for name, values in batch.items()}
        chunks: Tensor = self.vqbet(batch, generator).chunks
        newest = chunks.view(-1, queries, chunks.shape[-1])[:, steps - 1]
        return newest.reshape(len(newest), self.config.action_chunk_size, -1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return matrices and encoders, the VQ-VAE, and what does not decay, in this order."""
        decaying, vqvae, others = self.vqbet.groups()
        vqvae_options = {
            "lr": self.config.optimizer_vqvae_lr,
            "weight_decay": self.config.optimizer_vqvae_weight_decay,
        }
        return [
            {"params": decaying},
            {"params": vqvae, **vqvae_options},
            {"params": others, "weight_decay": 0.0},
        ]

    def action_only_updates(self) -> int:
        """Return the length of the first phase."""
        if self.vqbet.action_head.vqvae_model.frozen:
            return 0
        return self.config.n_vqvae_training_steps

    def synchronized(self) -> list[Tensor]:
        """Return what the codebooks follow, in the first phase."""
        vqvae = self.vqbet.action_head.vqvae_model
        if vqvae.frozen:
            return []
        books = vqvae.vq_layer.codebooks
        return [average for book in books for average in (book.cluster_size, book.embed_avg)]

    def after_update(self, num_updates: int) -> None:
        """Take over averaged codebooks, and end the first phase when it has had its updates."""
        vqvae = self.vqbet.action_head.vqvae_model
        if vqvae.frozen:
            return
        for book in vqvae.vq_layer.codebooks:
            book.settle()
        if num_updates >= self.config.n_vqvae_training_steps:
            vqvae.freeze()

    def _quantization_loss(self, chunks: Tensor) -> Loss:
        reconstruction, commitment = self.vqbet.action_head.vqvae_model(chunks)
        figures = {"reconstruction": reconstruction.detach(), "commitment": commitment.detach()}
        return quantization_loss(reconstruction, commitment), figures

    def _prediction_loss(self, batch: Batch, chunks: Tensor) -> Loss:
        config, prediction = self.config, self.vqbet(batch)
        codes = self.vqbet.action_head.vqvae_model.encode(chunks)
        primary, secondary = (
            focal_loss(prediction.logits[:, level], codes[:, level]) for level in (0, 1)
        )
        offset = functional.l1_loss(prediction.chunks, chunks)
        loss = (
            config.primary_code_loss_weight * primary
            + config.secondary_code_loss_weight * secondary
            + config.offset_loss_weight * offset
        )
        figures = {
            "primary_code": primary,
            "secondary_code": secondary,
            "offset": offset,
            "decoded": functional.l1_loss(prediction.decoded, chunks),
        }
        return loss, {name: figure.detach() for name, figure in figures.items()}


class VQBeTPolicy(ImitationPolicy):
    """Acts with VQ-BeT; `act` always draws, also where it is asked to be deterministic."""

    config_class = VQBeTPolicyConfig

    def make_model(self) -> ImitationModel:
        """Return the network, with fresh weights."""
        return VQBeT(self.config, self.processor.features)

    def make_actions(self) -> Actions:
        """Return what plays each chunk to its end."""
        return ActionQueues(self.config.action_chunk_size)

    def prepare(
        self, batch: RawBatch, transforms: Callable[[Tensor], Tensor] | None = None
    ) -> Batch:
        """Return the normalised tensors of a batch; of a sample of the first phase, its actions.

        That phase looks at nothing else, and pictures take the most time.
        """
        assert isinstance(self.model, VQBeT)
        if ACTION in batch and not self.model.vqbet.action_head.vqvae_model.frozen:
            batch = {ACTION: batch[ACTION]}
        return super().prepare(batch, transforms)
