"""A small GPT: pre-norm transformer blocks that look only back, with minGPT's names of tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

INIT_STD = 0.02


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token to itself and those before it.

    Args:
        width: of tokens, a multiple of the number of heads.
        num_heads: attention heads.
        block_size: length of the longest sequence.
        dropout: share of attention weights and of outputs that are dropped while training.
    """

    def __init__(self, width: int, num_heads: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.resid_dropout = nn.Dropout(dropout)
        # the mask that LeRobot's files hold; what computes the attention has its own
        mask = torch.ones(block_size, block_size).tril()
        self.register_buffer("bias", mask.view(1, 1, block_size, block_size))

    def forward(self, x: Tensor) -> Tensor:
        """Return what each of the tokens [B, T, width] gathers."""
        heads = self.c_attn(x).unflatten(-1, (3, self.num_heads, -1))  # [B, T, 3, heads, size]
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        gathered: Tensor = self.resid_dropout(self.c_proj(y.transpose(1, 2).flatten(2)))
        return gathered


class Block(nn.Module):
    """Attention and a two-layer network, each added to what came in."""

    def __init__(self, width: int, num_heads: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, num_heads, block_size, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [B, T, width]."""
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """Turns a sequence of vectors into one of the same length.

    Args:
        input_size: length of the vectors that come in.
        width: of the transformer.
        output_size: length of the vectors that go out.
        num_layers: blocks.
        num_heads: of each block.
        block_size: length of the longest sequence.
        dropout: share of activations that are dropped while training.
    """

    def __init__(
        self,
        *,
        input_size: int,
        width: int,
        output_size: int,
        num_layers: int,
        num_heads: int,
        block_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        blocks = [Block(width, num_heads, block_size, dropout) for _ in range(num_layers)]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Linear(input_size, width),
                "wpe": nn.Embedding(block_size, width),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList(blocks),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, output_size, bias=False)
        self.apply(_init)
        for block in blocks:  # as GPT-2: the sum over all blocks keeps its size
            nn.init.normal_(block.attn.c_proj.weight, std=INIT_STD * (2 * num_layers) ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return vectors [B, T, output_size] of tokens [B, T, input_size]."""
        parts = self.transformer
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = parts["drop"](parts["wte"](tokens) + parts["wpe"](positions))
        for block in parts["h"].children():
            x = block(x)
        vectors: Tensor = self.lm_head(parts["ln_f"](x))
        return vectors

    def decaying(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters that weight decay is for, and the others; each sorted by name."""
        matrices = {
            f"{name}.weight" for name, part in self.named_modules() if isinstance(part, nn.Linear)
        }
        parameters = sorted(self.named_parameters())
        decaying = [parameter for name, parameter in parameters if name in matrices]
        return decaying, [parameter for name, parameter in parameters if name not in matrices]


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
