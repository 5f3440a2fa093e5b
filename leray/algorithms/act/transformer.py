"""Transformer layers as in DETR (Carion et al. 2020, arXiv 2005.12872): positions in every layer.

Sequences are [B, tokens, D]. Tensors are named as in LeRobot's files, attention as in torch's.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.networks.dropout import Dropout, dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class Attention(nn.Module):
    """Attention with several heads (Vaswani et al. 2017, arXiv 1706.03762, section 3.2).

    Args:
        size: D, of the vectors.
        num_heads: heads, of D / num_heads each.
        dropout: share of weights that training drops.
    """

    def __init__(self, size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size, size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size))
        self.out_proj = nn.Linear(size, size)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        is_pad: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return what each query finds, [B, queries, D].

        Args:
            query: [B, queries, D]; a batch of 1 stands for B equal ones, here and below.
            key: [B, keys, D].
            value: [B, keys, D].
            is_pad: keys that are not to be found, bool [B, keys].
            batch_size: B; None is that of the keys.
        """
        rows = batch_size or len(key)
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, weight, bias)
            .view(*x.shape[:2], self.num_heads, -1)
            .transpose(1, 2)
            .expand(rows, -1, -1, -1)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        seen = None if is_pad is None else ~is_pad[:, None, None, :]
        found = _attend(q, k, v, seen, self.dropout if self.training else 0.0)
        mixed: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return mixed


def _attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, p: float) -> Tensor:
    """Return softmax(query key^T / sqrt(size)) value, with a share p of the weights dropped."""
    if p == 0 or not query.is_cpu:
        return functional.scaled_dot_product_attention(query, key, value, seen, p)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return dropout(scores.softmax(-1), p) @ value


class _Layer(nn.Module):
    """What layers of both kinds have: residual parts, the last of them feed-forward."""

    linear1: nn.Linear
    linear2: nn.Linear

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.activation = ACTIVATIONS[config.feedforward_activation]
        self.dropout = Dropout(config.dropout)

    def _residual(self, norm: nn.Module, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Add what a part makes of x; where it makes fewer tokens, to the first ones of x."""
        added = self.dropout(part(norm(x) if self.pre_norm else x))
        x = x[:, : added.shape[1]] + added
        return x if self.pre_norm else norm(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.linear1(x)))
        output: Tensor = self.linear2(hidden)
        return output


class EncoderLayer(_Layer):
    """Self-attention and a feed-forward part."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__(config)
        size = config.dim_model
        self.self_attn = Attention(size, config.n_heads, config.dropout)
        self.linear1 = nn.Linear(size, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, size)
        self.norm1 = nn.LayerNorm(size)
        self.norm2 = nn.LayerNorm(size)

    def forward(
        self, x: Tensor, positions: Tensor, is_pad: Tensor | None, outputs: int | None
    ) -> Tensor:
        """Return the first tokens after this layer, [B, outputs, D]; None is all of them."""

        def attend(x: Tensor) -> Tensor:
            placed = x + positions
            found: Tensor = self.self_attn(placed[:, :outputs], placed, x, is_pad=is_pad)
            return found

        x = self._residual(self.norm1, attend, x)
        return self._residual(self.norm2, self._feed_forward, x)


class DecoderLayer(_Layer):
    """Self-attention, attention to what the encoder made, and a feed-forward part."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__(config)
        size = config.dim_model
        self.self_attn = Attention(size, config.n_heads, config.dropout)
        self.multihead_attn = Attention(size, config.n_heads, config.dropout)
        self.linear1 = nn.Linear(size, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, size)
        self.norm1 = nn.LayerNorm(size)
        self.norm2 = nn.LayerNorm(size)
        self.norm3 = nn.LayerNorm(size)

    def forward(
        self, x: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor
    ) -> Tensor:
        """Return the tokens after this layer, [B, tokens, D]; x may be a batch of 1 for all."""
        drops = self.training and self.dropout.p > 0
        batch_size = len(memory) if drops else len(x)  # what is dropped differs

        def attend(x: Tensor) -> Tensor:
            placed = x + positions
            found: Tensor = self.self_attn(placed, placed, x, batch_size=batch_size)
            return found

        def look(x: Tensor) -> Tensor:
            key = memory + memory_positions
            found: Tensor = self.multihead_attn(x + positions, key, memory)
            return found

        x = self._residual(self.norm1, attend, x)
        x = self._residual(self.norm2, look, x)
        return self._residual(self.norm3, self._feed_forward, x)


class Encoder(nn.Module):
    """Layers of self-attention, with a norm at the end where each layer has them first."""

    def __init__(self, config: ACTPolicyConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(num_layers))
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        *,
        is_pad: Tensor | None = None,
        outputs: int | None = None,
    ) -> Tensor:
        """Return the first tokens encoded, [B, outputs, D].

        Args:
            x: tokens [B, S, D].
            positions: [S, D].
            is_pad: tokens that none attends to, bool [B, S].
            outputs: how many to return; None is all.
        """
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, positions, is_pad, outputs if number == last else None)
        encoded: Tensor = self.norm(x)
        return encoded


class Decoder(nn.Module):
    """Layers that turn positions into answers to what the encoder made."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, positions: Tensor, memory: Tensor, memory_positions: Tensor) -> Tensor:
        """Return one token per position, [B, K, D].

        Args:
            positions: [K, D].
            memory: [B, S, D].
            memory_positions: [S, D].
        """
        x = torch.zeros_like(positions).unsqueeze(0)
        for layer in self.layers:
            x = layer(x, positions, memory, memory_positions)
        decoded: Tensor = self.norm(x)
        return decoded
