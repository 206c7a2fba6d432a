"""The two demo models as eager modules: a small CNN for 8x8 digits and a small causal transformer over characters.

`train_demo.py` trains and exports them; tests build them with random weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

VOCABULARY = 96
CONTEXT = 128


class Block(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class DigitsModel(nn.Module):
    """Images [N, 1, 8, 8] with values from 0 to 1 -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(1, 16, kernel=3)
        self.middle = Block(16, 32, kernel=3)
        self.reduce = Block(32, 48, kernel=3, stride=2)
        self.depthwise = Block(48, 48, kernel=3, groups=48)
        self.pointwise = Block(48, 96, kernel=1)
        self.head = nn.Linear(96, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.reduce(self.middle(self.stem(images)))
        logits: Tensor = self.head(self.pointwise(self.depthwise(features)).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Causal self-attention with rotary positions (RoFormer, arXiv:2104.09864)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        query, key, value = (layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return result


class DecoderLayer(nn.Module):
    """Attention and a gated MLP, each behind an RMS norm and around a residual connection."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.mlp = GatedMlp(width, inner)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), cosine, sine)
        result: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return result


class CharsModel(nn.Module):
    """Tokens [N, T] with T up to 128 -> logits [N, T, 96] of the next token.

    Args:
        layers: decoder layers.
        width: width of the residual stream.
        heads: attention heads; `width` is a multiple of twice this.
        inner: width inside the MLP.
        tied: whether the head shares the embedding's weight; the shipped model does not.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, *, layers: int = 3, width: int = 64, heads: int = 4, inner: int = 96, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self._initialize(layers)
        if tied:
            self.head.weight = self.embedding.weight
        angles = rotary_angles(width // heads)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        hidden = self.embedding(tokens)
        cosine, sine = self.cosine[:length], self.sine[:length]
        for layer in self.layers:
            hidden = layer(hidden, cosine, sine)
        logits: Tensor = self.head(self.norm(hidden))
        return logits

    def _initialize(self, layers: int) -> None:
        """Normal weights of deviation 1/sqrt(inputs); what writes to the residual stream is smaller, as in GPT-2."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = (2 * layers) ** -0.5 if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)


def rotary_angles(head_width: int) -> Tensor:
    """Angles [CONTEXT, head_width / 2] by which pairs of query and key elements are turned at each position."""
    frequencies = 1e4 ** -torch.arange(0, 1, 2 / head_width)
    return torch.outer(torch.arange(CONTEXT, dtype=torch.float32), frequencies)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys [N, heads, T, head_width], turned by their position."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
