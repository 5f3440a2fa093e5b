"""What VQ-BeT predicts from the transformer's answer to a query: codes, and offsets from them.

Lee et al. 2024 (arXiv 2403.03181), section 3.3. N queries, L levels of C codes, chunks of D
numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.quantizer import NUM_LEVELS, VqVae


class Prediction(NamedTuple):
    """What the head says of N queries."""

    logits: Tensor
    """Of the codes of each level, [N, L, C]."""
    decoded: Tensor
    """The chunks that the drawn codes stand for, [N, D]."""
    chunks: Tensor
    """Those with their offsets, [N, D]."""


class Head(nn.Module):
    """Draws codes of chunks and corrects what they decode to.

    Args:
        config: the policy's options.
        action_size: numbers of an action.
    """

    def __init__(self, config: VQBeTPolicyConfig, action_size: int) -> None:
        super().__init__()
        chunk_size = config.action_chunk_size * action_size
        inputs, num_codes = config.gpt_output_dim, config.vqvae_n_embed
        self.num_codes, self.temperature = num_codes, config.bet_softmax_temperature
        self.sequential = config.sequentially_select
        self.vqvae_model = VqVae(
            chunk_size=chunk_size,
            num_codes=num_codes,
            size=config.vqvae_embedding_dim,
            hidden_size=config.vqvae_enc_hidden_dim,
        )
        if self.sequential:
            self.map_to_cbet_preds_primary_bin = linear(inputs, num_codes)
            self.map_to_cbet_preds_secondary_bin = linear(inputs + num_codes, num_codes)
        else:
            self.map_to_cbet_preds_bin = linear(inputs, NUM_LEVELS * num_codes)
        self.map_to_cbet_preds_offset = linear(inputs, NUM_LEVELS * num_codes * chunk_size)

    def forward(self, answers: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Return the prediction of answers [N, gpt_output_dim].

        Args:
            answers: of the transformer.
            generator: what codes are drawn with; None is torch's own.
        """
        logits, codes = self._draw(answers, generator)
        offsets = self.map_to_cbet_preds_offset(answers)
        offsets = offsets.unflatten(-1, (NUM_LEVELS, self.num_codes, -1))  # [N, L, C, D]
        index = codes[..., None, None].expand(-1, -1, 1, offsets.shape[-1])
        decoded = self.vqvae_model.decode(codes)
        return Prediction(logits, decoded, decoded + offsets.gather(2, index).sum((1, 2)))

    def _draw(self, answers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return logits [N, L, C], and codes [N, L] that were drawn by them."""
        if not self.sequential:
            logits = self.map_to_cbet_preds_bin(answers).unflatten(-1, (NUM_LEVELS, -1))
            codes = self._sample(logits.flatten(0, 1), generator)
            return logits, codes.view(-1, NUM_LEVELS)
        primary = self.map_to_cbet_preds_primary_bin(answers)
        first = self._sample(primary, generator)
        known = functional.one_hot(first, self.num_codes).to(answers.dtype)
        secondary = self.map_to_cbet_preds_secondary_bin(torch.cat([answers, known], dim=-1))
        second = self._sample(secondary, generator)
        return torch.stack([primary, secondary], dim=1), torch.stack([first, second], dim=1)

    def _sample(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return codes [N] drawn by logits [N, C]."""
        probabilities = (logits.detach().float() / self.temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def linear(inputs: int, outputs: int) -> nn.Sequential:
    """Return a linear layer with the name it has in LeRobot's files, where it is an MLP."""
    return nn.Sequential(nn.Linear(inputs, outputs))
