"""Tracing: the graph of a network that is no Llama, as `transformers` computes it, with its cache as tensors.

Attention is GroupQueryAttention, where it can be (`attending`). Elsewhere the one thing that is put in its place is the
mask: what a token sees is told by positions, not by places in the cache, so that rows of different lengths lie in one
cache, and a window is counted right in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from .attending import OPERATOR, Attending, Unfit, attending, tell_lengths

__all__ = ["CacheSizes", "Traced", "cache_argument", "first_line", "traced"]

_OPSET = 20


class CacheSizes(NamedTuple):
    """The sizes of a cache, the same in all layers."""

    layers: int
    heads: int
    head_size: int

    @property
    def names(self) -> list[str]:
        """`<layer>.key` and `.value` of each."""
        return [f"{layer}.{part}" for layer in range(self.layers) for part in ("key", "value")]


class Traced(NamedTuple):
    """A network as a graph."""

    graph: onnx_ir.Model
    attention: str
    """GroupQueryAttention, or why it is not that."""


def traced(network: PreTrainedModel, sizes: CacheSizes) -> Traced:
    """The graph of a network that keeps such a cache.

    Raises:
        Exception: whatever torch's exporter raises.
    """
    try:
        with attending(network) as attention:
            attention.try_out(network, cache_argument(network), *sizes)
            model, _ = optimize_for_ort(_exported(network, sizes, attention))
            tell_lengths(model.graph)
            return Traced(model, OPERATOR)
    except Unfit as unfit:
        reason = str(unfit)
    except Exception as error:  # whatever transformers or the exporter make of an architecture
        reason = first_line(error)
    with _masks_by_position():
        return Traced(_exported(network, sizes), f"its own, {reason}")


def first_line(error: Exception) -> str:
    """Its class and what it says first: those of the exporter go on for pages."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:300]}"


def cache_argument(network: PreTrainedModel) -> str:
    """What the network calls its cache; transformers renames it."""
    return "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"


@torch.no_grad()
def _exported(
    network: PreTrainedModel, sizes: CacheSizes, attention: Attending | None = None
) -> onnx_ir.Model:
    positions = "position_ids" in inspect.signature(network.forward).parameters
    arguments, axes, names = _example(sizes, positions)
    program = torch.onnx.export(
        _WithCache(network, positions, attention).eval(),
        arguments,
        dynamo=True,
        opset_version=_OPSET,
        input_names=names,
        output_names=["logits", *(f"present.{name}" for name in sizes.names)],
        dynamic_shapes=axes,
        verbose=False,
    )
    assert program is not None  # with dynamo=True there is always one
    _unreshape(program.model.graph)
    RemoveUnusedNodesPass()(program.model)
    ClearMetadataAndDocStringPass()(program.model)  # they hold paths of the machine that it ran on
    return program.model


def _unreshape(graph: onnx_ir.Graph) -> None:
    """Read what has been reshaped there and back from where it had the shape before."""
    for node in graph:
        if node.op_type != "Reshape" or node.outputs[0].is_graph_output():
            continue
        [made], before = node.outputs, node.inputs[0]
        while before is not None and not _alike(before, made):
            maker = before.producer()
            before = maker.inputs[0] if maker is not None and maker.op_type == "Reshape" else None
        if before is not None:
            made.replace_all_uses_with(before)


def _alike(one: onnx_ir.Value, other: onnx_ir.Value) -> bool:
    """Whether both surely have the same shape."""
    if one.shape is None or other.shape is None or one.shape != other.shape:
        return False
    return all(isinstance(size, int) or size.value is not None for size in one.shape)


class _WithCache(nn.Module):
    """The network with its cache as tensors."""

    def __init__(self, network: PreTrainedModel, positions: bool, attention: Attending | None) -> None:
        super().__init__()
        self.network = network
        self._argument = cache_argument(network)
        self._positions = positions
        self._attention = attention

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Tokens [N, T], mask [N, P + T], positions [N, T] and for each layer keys and values [N, H, P, D]; the logits
        [N, T, V] and keys and values [N, H, P + T, D].
        """
        cache = self._attention.cache(past) if self._attention else _filled(past)
        more: dict[str, Any] = {"position_ids": position_ids} if self._positions else {}
        made = self.network(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=True,
            **{self._argument: cache},
            **more,
        )
        if self._attention:
            return made.logits, *self._attention.present()
        grown: list[Any] = made[self._argument].layers
        return made.logits, *(part for layer in grown for part in (layer.keys, layer.values))


def _filled(past: list[Tensor]) -> DynamicCache:
    """A cache of keys and values [N, H, P, D] of each layer."""
    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def _example(sizes: CacheSizes, positions: bool) -> tuple[tuple[Any, ...], tuple[Any, ...], list[str]]:
    """Inputs to trace with, their dynamic axes, and their names."""
    rows, length, past = 2, 3, 5
    place = torch.arange(past, past + length).expand(rows, -1).contiguous()
    cache = [torch.zeros(rows, sizes.heads, past, sizes.head_size) for _ in sizes.names]
    arguments = (
        torch.ones(rows, length, dtype=torch.int64),
        torch.ones(rows, past + length, dtype=torch.int64),
        place if positions else None,
        cache,
    )
    tokens = {0: "batch", 1: "sequence"}
    axes = (
        tokens,
        {0: "batch", 1: "total_sequence"},
        dict(tokens) if positions else None,
        [{0: "batch", 2: "past_sequence"} for _ in cache],
    )
    names = ["input_ids", "attention_mask", *(["position_ids"] if positions else [])]
    return arguments, axes, names + [f"past_key_values.{name}" for name in sizes.names]


@contextmanager
def _masks_by_position() -> Iterator[None]:
    """What eager attention is masked by, inside of this."""
    before = ALL_MASK_ATTENTION_FUNCTIONS["eager"]
    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = _mask_by_position
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS["eager"] = before


def _mask_by_position(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **others: Any,
) -> Tensor:
    """As transformers' `eager_mask`, float [N, 1, T, P + T], for a cache with padding anywhere in it."""
    assert mask_function is not None and attention_mask is not None
    places = attention_mask.long().cumsum(1) - 1  # of each token in its row [N, P + T]
    rows = torch.arange(attention_mask.shape[0])[:, None, None, None]
    queries, keys = places[:, None, q_offset:, None], places[:, None, None, :]
    seen = (
        mask_function(rows, torch.zeros_like(rows), queries, keys) & attention_mask[:, None, None, :].bool()
    )
    return torch.where(seen, 0.0, torch.finfo(dtype).min)
