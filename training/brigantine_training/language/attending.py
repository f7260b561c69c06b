"""Attending: networks of `transformers`, traced with the attention that ONNX Runtime is fast at in place of their own.

Most of them call whatever attention they are told, with queries and with the keys and values that their cache gives.
Told GroupQueryAttention, which appends to the cache itself, and given a cache that leaves this to it, they become
graphs that append in place, on a GPU too, and that need no mask. Whether a network attends as this operator does is
seen by running it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import onnx_ir
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.masking_utils import eager_mask

__all__ = ["OPERATOR", "Attending", "Unfit", "attending", "tell_lengths"]

_NAME = "group_query"
OPERATOR, _CONTRIB = "GroupQueryAttention", "com.microsoft"
_HEAD = 8
"""CUDA's kernels want heads whose size is a multiple of this."""
_TRIED = 64
"""Tokens that a network is run with, to see how it attends."""
_LONGEST = 4096
"""The context of one that does not say how long it is."""
_LAST, _ROOM = 5, 6
"""Which inputs of the operator tell each row's last index, and the room for tokens."""
_HARMLESS = (
    "dropout",
    "is_causal",
    "output_attentions",
    "position_ids",
    "scaling",
    "sliding_window",
    "softcap",
)
"""What attention may be given besides queries, keys, values and mask."""


class Unfit(Exception):
    """The network attends in a way of its own."""


class _How(NamedTuple):
    """What one layer asks of its attention."""

    scale: float
    window: int
    """Tokens that one sees, itself among them; -1 for all before it."""
    softcap: float


class _Reading(DynamicCache):
    """A cache that layers only read: what is appended they get back alone."""

    def __init__(self, past: Sequence[Tensor]) -> None:
        super().__init__()
        for layer in range(len(past) // 2):
            super().update(past[2 * layer], past[2 * layer + 1], layer)
        self.fresh: tuple[int, Tensor, Tensor] | None = None
        """What the layer that runs has made: its index, keys and values."""
        self.made: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of each layer, the past ones among them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Note what the layer has made, [N, H, T, D] each."""
        self.fresh = layer_idx, key_states, value_states
        return key_states, value_states

    def take(self, key: Tensor, value: Tensor) -> tuple[int, Tensor, Tensor]:
        """The layer that attends to these, and its past.

        Raises:
            Unfit: they are not what it has appended.
        """
        fresh, self.fresh = self.fresh, None
        if fresh is None or key is not fresh[1] or value is not fresh[2]:
            raise Unfit("it attends to something else than its cache")
        layer: Any = self.layers[fresh[0]]
        return fresh[0], layer.keys, layer.values


class Attending:
    """Attention for the layers of a network, while it is tried and traced."""

    def __init__(self) -> None:
        self._cache: _Reading | None = None
        self._hows: dict[int, _How] = {}
        self._masks: list[tuple[Tensor, Tensor]] = []
        """Those that were asked for, and what the last token of the longest text sees, bool [L]."""
        self._longest = _LONGEST
        self._is_tried = False

    def cache(self, past: Sequence[Tensor]) -> DynamicCache:
        """The cache to run the network with next.

        Args:
            past: keys and values [N, H, P, D] of each layer.
        """
        self._cache = _Reading(past)
        return self._cache

    def present(self) -> list[Tensor]:
        """Keys and values [N, H, P + T, D] of each layer that has run.

        Raises:
            Unfit: some have not attended.
        """
        assert self._cache is not None
        made = self._cache.made
        if sorted(made) != list(range(len(self._cache.layers))):
            raise Unfit(f"of {len(self._cache.layers)} layers {len(made)} attend as they are told")
        return [part for layer in sorted(made) for part in made[layer]]

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """As `transformers` calls it: queries [N, H, T, D], keys and values [N, G, T, D]; gives [N, T, H, D]."""
        assert self._cache is not None
        layer, past_key, past_value = self._cache.take(key, value)
        if not self._is_tried:
            how = self._hows[layer] = _how(query, key, value, others)
            self._check(attention_mask, how.window)
            self._cache.made[layer] = past_key, past_value
            return torch.zeros_like(query).transpose(1, 2), None
        attended, *present = _group_query(self._hows[layer], query, key, value, past_key, past_value)
        self._cache.made[layer] = present[0], present[1]
        return attended, None

    def mask(self, **asked: Any) -> Tensor | None:
        """What layers are masked by, as `transformers` asks for it: by nothing, once it is known what they see."""
        if self._is_tried:
            return None
        first = torch.zeros(1, dtype=torch.int64)
        tokens = torch.arange(self._longest)
        mask = eager_mask(**asked)
        self._masks.append((mask, asked["mask_function"](first, first, tokens[-1:], tokens)))
        return mask

    def _check(self, mask: Tensor | None, window: int) -> None:
        """That a token sees those before it in a window, in a short text and at the end of the longest.

        Raises:
            Unfit: it sees others, or nobody knows.
        """
        far = next((row for given, row in self._masks if given is mask), None)
        if mask is None or far is None:
            raise Unfit("its mask is one of its own")
        length = mask.shape[-1]
        if not torch.equal(mask[0, 0] == 0, _seen(torch.arange(length), length, window)):
            raise Unfit("a token sees others than those before it")
        if not torch.equal(far, _seen(torch.arange(self._longest)[-1:], self._longest, window)[0]):
            told = f"the {window}" if window > 0 else "all"
            raise Unfit(f"at the end of a long text a token sees others than {told} before it")

    @torch.inference_mode()
    def try_out(
        self, network: PreTrainedModel, argument: str, layers: int, heads: int, head_size: int
    ) -> None:
        """Run the network once, to see how each layer attends.

        Args:
            network: it.
            argument: what it calls its cache.
            layers: how many it has.
            heads: how many of keys and values a layer has.
            head_size: the numbers in each.

        Raises:
            Unfit: in a way that GroupQueryAttention does not.
        """
        config = network.config.get_text_config()
        self._longest = getattr(config, "max_position_embeddings", None) or _LONGEST
        length = min(self._longest, _TRIED)
        empty = [torch.zeros(1, heads, 0, head_size)] * (2 * layers)
        network(
            input_ids=torch.zeros(1, length, dtype=torch.int64),
            attention_mask=torch.ones(1, length, dtype=torch.int64),
            use_cache=True,
            **{argument: self.cache(empty)},
        )
        self.present()
        self._is_tried = True


@contextmanager
def attending(network: PreTrainedModel) -> Iterator[Attending]:
    """Inside of this the network attends as it is told; one at a time in a process, all of which know the name."""
    attention, before = Attending(), network.config._attn_implementation or "eager"
    AttentionInterface.register(_NAME, attention.attend)
    AttentionMaskInterface.register(_NAME, attention.mask)
    try:
        network.set_attn_implementation(_NAME)
        yield attention
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(_NAME, None)
        network.set_attn_implementation(before)


def tell_lengths(graph: onnx_ir.Graph) -> None:
    """Give each GroupQueryAttention of a graph the index of each row's last token and the room, made of its mask."""
    mask = next(value for value in graph.inputs if value.name == "attention_mask")
    one = onnx_ir.tensor([1], onnx_ir.DataType.INT64, name="one")
    axis = onnx_ir.val(one.name, const_value=one)
    graph.register_initializer(axis)
    nodes: list[onnx_ir.Node] = []

    def add(kind: str, *inputs: onnx_ir.Value, **attributes: int) -> onnx_ir.Value:
        nodes.append(onnx_ir.node(kind, inputs, attributes))
        return nodes[-1].outputs[0]

    counted = add("ReduceSum", mask, axis, keepdims=0)  # int64 [N]
    last = add("Cast", add("Sub", counted, axis), to=onnx_ir.DataType.INT32)
    length = add("Squeeze", add("Shape", mask, start=1, end=2))
    room = add("Cast", length, to=onnx_ir.DataType.INT32)
    attend = [node for node in graph if node.op_type == OPERATOR]
    graph.insert_before(graph[0], nodes)
    for node in attend:
        node.resize_inputs(_ROOM + 1)
        node.replace_input_with(_LAST, last)
        node.replace_input_with(_ROOM, room)


def _how(query: Tensor, key: Tensor, value: Tensor, others: dict[str, Any]) -> _How:
    """What a layer asks for.

    Raises:
        Unfit: it is nothing that GroupQueryAttention does.
    """
    odd = [
        name
        for name, given in others.items()
        if name not in _HARMLESS and given is not None and not isinstance(given, bool)
    ]
    if odd:
        raise Unfit(f"its attention has {', '.join(odd)}")
    if value.shape != key.shape or query.shape[3] != key.shape[3] or key.shape[3] % _HEAD:
        raise Unfit(f"its heads have {query.shape[3]}, {key.shape[3]} and {value.shape[3]} numbers")
    scale = others.get("scaling")
    return _How(
        query.shape[3] ** -0.5 if scale is None else scale,
        others.get("sliding_window") or -1,
        others.get("softcap") or 0.0,
    )


def _seen(tokens: Tensor, length: int, window: int) -> Tensor:
    """Which of so many tokens these [T] see, bool [T, length]."""
    back = tokens[:, None] - torch.arange(length)
    return (back >= 0) & ((back < window) | (window < 0))


def _group_query(
    how: _How, query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Sequence[Tensor]:
    """The operator, which is traced, not run: attention [N, T, H, D], keys and values [N, G, P + T, D]."""
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    grown = (rows, groups, past_key.shape[2] + length, size)
    flat = [one.transpose(1, 2).flatten(2) for one in (query, key, value)]  # [N, T, H * D]
    attended, *present = torch.onnx.ops.symbolic_multi_out(
        f"{_CONTRIB}::{OPERATOR}",
        [*flat, past_key, past_value],
        {
            "num_heads": heads,
            "kv_num_heads": groups,
            "scale": float(how.scale),
            "local_window_size": how.window,
            "softcap": float(how.softcap),
        },
        dtypes=[torch.float32] * 3,
        shapes=[(rows, length, heads * size), grown, grown],
        version=1,
    )
    return attended.unflatten(2, (heads, size)), *present
