"""The residual VQ-VAE that turns chunks of actions into two codes each, and back.

Zeghidour et al. 2021, "SoundStream" (arXiv 2107.03312), algorithm 1; the codebooks follow moving
averages as in van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1. N chunks of D numbers,
encoded as vectors of E numbers; L levels of C codes.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_LEVELS = 2
EMA_DECAY = 0.8
SMOOTHING = 1e-5
"""Added to how often each code was used."""


class Quantized(NamedTuple):
    """What a residual quantiser makes of vectors [N, E]."""

    vectors: Tensor
    """Sums of the codes' vectors, with gradients of what came in, [N, E]."""
    codes: Tensor
    """[N, L]."""
    commitment: Tensor
    """Mean squared distance of vectors and codes, summed over the levels, []."""


class Codebook(nn.Module):
    """Vectors of C codes: the moving average of what was nearest to each.

    Tensors have a leading axis of 1, as LeRobot's files have it.
    """

    cluster_size: Tensor
    """How often each code was used, a moving average; [1, C]."""
    embed_avg: Tensor
    """Sum of what it was used for, a moving average; [1, C, E]."""
    embed: Tensor
    """The vectors, [1, C, E]."""

    def __init__(self, num_codes: int, size: int) -> None:
        super().__init__()
        embed = nn.init.kaiming_uniform_(torch.empty(1, num_codes, size))
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, num_codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the code nearest to each of the vectors [N, E], as [N]."""
        embed = self.embed[0]
        # of the squared distance, the term that is the same for all codes is left out
        return (embed.square().sum(-1) - 2 * vectors @ embed.T).argmin(-1)

    def follow(self, vectors: Tensor, codes: Tensor) -> None:
        """Move the averages towards vectors [N, E] and the codes [N] that were nearest to them."""
        # a matrix product adds in the same order each time, where index_add on a GPU does not
        used = functional.one_hot(codes, self.cluster_size.shape[1]).to(vectors.dtype)
        self.cluster_size.lerp_(used.sum(0, keepdim=True), 1 - EMA_DECAY)
        self.embed_avg.lerp_((used.T @ vectors).unsqueeze(0), 1 - EMA_DECAY)
        self.settle()

    def settle(self) -> None:
        """Set the vectors to what the averages say."""
        total = self.cluster_size.sum()
        share = (self.cluster_size + SMOOTHING) / (total + self.cluster_size.numel() * SMOOTHING)
        self.embed.copy_(self.embed_avg / (share * total).unsqueeze(-1))


class Level(nn.Module):
    """One codebook, under the name it has in LeRobot's files."""

    def __init__(self, num_codes: int, size: int) -> None:
        super().__init__()
        self._codebook = Codebook(num_codes, size)

    @property
    def codebook(self) -> Codebook:
        """The vectors of this level."""
        return self._codebook


class ResidualVQ(nn.Module):
    """Codes vectors level by level; each codes what the ones before it left over."""

    freeze_codebook: Tensor

    def __init__(self, num_codes: int, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Level(num_codes, size) for _ in range(NUM_LEVELS))
        self.register_buffer("freeze_codebook", torch.zeros((), dtype=torch.bool))

    @property
    def codebooks(self) -> list[Codebook]:
        """Those of all levels."""
        return [cast(Level, level).codebook for level in self.layers]

    def forward(self, vectors: Tensor, *, learn: bool) -> Quantized:
        """Quantise vectors [N, E].

        Each level passes gradients straight on to what it coded. What is left over for the next
        level carries them too, so that the gradient reaches the vectors L times.

        Args:
            vectors: to be coded.
            learn: move the codebooks.
        """
        left, total = vectors, torch.zeros_like(vectors)
        codes, commitment = [], vectors.new_zeros(())
        for codebook in self.codebooks:
            chosen = codebook.nearest(left.detach())
            coded = codebook.embed[0, chosen]
            if learn:
                codebook.follow(left.detach(), chosen)
            commitment = commitment + functional.mse_loss(left, coded)
            passed = left + (coded - left).detach()
            left, total = left - passed.detach(), total + passed
            codes.append(chosen)
        return Quantized(total, torch.stack(codes, dim=-1), commitment)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the sums [N, E] of the vectors of codes [N, L]."""
        parts = [book.embed[0, codes[:, level]] for level, book in enumerate(self.codebooks)]
        return torch.stack(parts).sum(0)


class VqVae(nn.Module):
    """Encoder, residual quantiser and decoder of flattened chunks of actions.

    Args:
        chunk_size: D, numbers of a chunk.
        num_codes: C.
        size: E.
        hidden_size: width of the two hidden layers of encoder and decoder.
    """

    discretized: Tensor
    """Whether the first phase of training is over, as a tensor for the file."""

    def __init__(self, *, chunk_size: int, num_codes: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("discretized", torch.zeros((), dtype=torch.bool))
        self.vq_layer = ResidualVQ(num_codes, size)
        self.encoder = _mlp(chunk_size, hidden_size, size)
        self.decoder = _mlp(size, hidden_size, chunk_size)
        self.frozen = False
        """What `discretized` says, known without waiting for the device."""
        self.register_load_state_dict_post_hook(_note_phase)  # type: ignore[no-untyped-call]

    def forward(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean absolute error of decoded chunks [N, D], and the commitment loss.

        The codebooks learn while training.
        """
        with _float32(chunks):
            quantized = self.vq_layer(self.encoder(chunks), learn=self.training and not self.frozen)
            return functional.l1_loss(self.decoder(quantized.vectors), chunks), quantized.commitment

    @torch.no_grad()
    def encode(self, chunks: Tensor) -> Tensor:
        """Return the codes [N, L] of chunks [N, D]."""
        with _float32(chunks):
            codes: Tensor = self.vq_layer(self.encoder(chunks), learn=False).codes
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the chunks [N, D] that codes [N, L] stand for."""
        with _float32(codes):
            chunks: Tensor = self.decoder(self.vq_layer.vectors(codes))
        return chunks

    def freeze(self) -> None:
        """End the first phase: codes keep their meaning from now on."""
        self.discretized.fill_(1)
        self.vq_layer.freeze_codebook.fill_(1)
        self.frozen = True


def _note_phase(module: nn.Module, _: Any) -> None:
    assert isinstance(module, VqVae)
    module.frozen = bool(module.discretized)


def _float32(values: Tensor) -> torch.autocast:
    """Return a context without autocast: codes must not change with the precision."""
    return torch.autocast(values.device.type, enabled=False)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(inputs, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, outputs),
    )
