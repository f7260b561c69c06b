"""The network: a causal transformer that computes what Hugging Face's `LlamaForCausalLM` does, by the same names.

Touvron et al. 2023, arXiv:2302.13971: RMSNorm before each part, rotary positions, SwiGLU, no bias; the embedding is
tied to the last projection.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import LanguageConfig

__all__ = ["EPSILON", "ROTARY_BASE", "SPREAD", "Llama", "attended"]

EPSILON = 1e-5
"""Added to the mean square in a norm."""
ROTARY_BASE = 10_000.0
"""The slowest rotation takes about 2 pi times so many tokens for a turn."""

_BLOCK = 128
"""Queries that attend at once: what lies after the last of them is not computed."""
SPREAD = 0.02
"""Standard deviation of fresh weights."""


class Llama(nn.Module):
    """Predicts each next token: forward(ids [N, T] int64) -> logits [N, T, vocabulary].

    Its `state_dict` has the names and shapes of `LlamaForCausalLM`'s checkpoints.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        cosines, sines = _rotations(config)
        self.cosines = nn.Buffer(cosines, persistent=False)  # [context, head_dim / 2]
        self.sines = nn.Buffer(sines, persistent=False)
        self._initialise()

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        table = self.model.embed_tokens.weight  # [V, C]
        hidden = functional.embedding(ids, table).to(_computed_in(table))  # [N, T, C]
        rotation = (self.cosines[:length].to(hidden), self.sines[:length].to(hidden))
        return functional.linear(self.model(hidden, rotation), table)  # [N, T, V]

    def matrices(self) -> list[nn.Parameter]:
        """The matrices inside the layers; the embedding is none of them."""
        return [weight for weight in self.model.layers.parameters() if weight.ndim == 2]

    def _initialise(self) -> None:
        """As GPT-2: what is added to the stream of hidden states starts smaller the more layers add to it."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                adds = name.endswith(("o_proj.weight", "down_proj.weight"))
                spread = SPREAD / math.sqrt(2 * self.config.layers) if adds else SPREAD
                nn.init.normal_(weight, std=spread)


class _Body(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = _Norm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = layer(hidden, rotation)
        return self.norm(hidden)


class _Layer(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.input_layernorm = _Norm(config.width)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = _Norm(config.width)
        self.mlp = _FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[N, T, C] in and out."""
        hidden = hidden + self.dropout(self.self_attn(self.input_layernorm(hidden), rotation))
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class _Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, self.weight.shape, self.weight.to(hidden.dtype), EPSILON)


class _Attention(nn.Module):
    """Causal self-attention with rotary positions (Su et al. 2021, arXiv:2104.09864)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self._head_dim = config.width // config.heads
        self._shared_by = config.heads // config.key_heads
        keys = config.key_heads * self._head_dim
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[N, T, C] in and out."""
        query = _rotated(self._heads(self.q_proj(hidden)), rotation) / math.sqrt(
            self._head_dim
        )  # [N, H, T, D]
        key = _rotated(self._heads(self.k_proj(hidden)), rotation).repeat_interleave(self._shared_by, 1)
        value = self._heads(self.v_proj(hidden)).repeat_interleave(self._shared_by, 1)
        return self.o_proj(attended(query, key, value).transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        """[N, T, H * D] to [N, H, T, D]"""
        return projected.unflatten(2, (-1, self._head_dim)).transpose(1, 2)


class _FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.down_proj = nn.Linear(config.inner_width, config.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, C] in and out."""
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each position's mean of the values up to its own, [N, H, T, D] all. `query` is scaled.

    Written out, because on a CPU, training, it is twice as fast as any kernel of scaled_dot_product_attention.
    """
    parts: list[Tensor] = []
    for start in range(0, query.shape[2], _BLOCK):
        stop = min(start + _BLOCK, query.shape[2])
        scores = query[:, :, start:stop] @ key[:, :, :stop].transpose(2, 3)  # [N, H, block, stop]
        future = torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype, device=scores.device).triu(
            start + 1
        )
        parts.append((scores + future).softmax(3).to(value.dtype) @ value[:, :, :stop])
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """The first half of each head's numbers are one side of the planes, the second half the other. [N, H, T, D]"""
    cosines, sines = rotation  # [T, D / 2]
    first, second = heads.chunk(2, 3)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], 3)


def _rotations(config: LanguageConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position's angles, each float32 [context, head_dim / 2]."""
    half = config.width // config.heads // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(config.context_tokens, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def _computed_in(weight: Tensor) -> torch.dtype:
    """The number format of the hidden states: autocast's inside of it."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
