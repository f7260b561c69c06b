"""The graph of a Llama: written node by node, because the attention that ONNX Runtime is fast at is its own operator.

GroupQueryAttention turns the queries and keys by their positions, appends to the cache and attends, in one kernel;
where the cache that comes in and the one that goes out are the same memory, it appends in place. Names and shapes are
those of onnxruntime-genai's model builder, so that its generator can run the graph too. One graph serves a prompt and
each token after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["llama_graph"]

_OPSET, _IR = 21, 10
_CONTRIB = "com.microsoft"


def llama_graph(
    config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]], half: bool = True
) -> onnx.ModelProto:
    """The graph of a Hugging Face `LlamaForCausalLM`, or of a model that differs by a bias of its q, k and v only.

    Inputs: `input_ids` int64 [batch, sequence], `attention_mask` int64 [batch, total_sequence], whose ones count the
    tokens of each row so far with those that come in, and for each layer `past_key_values.<layer>.key` and `.value`
    float32 [batch, kv_heads, past, head_dim]. Outputs: `logits` float32 [batch, sequence, vocabulary] and
    `present.<layer>.key` and `.value` float32 [batch, kv_heads, total, head_dim]. Rows of one batch may have pasts of
    different lengths when one token comes in for each.

    Args:
        config: what is in `config.json`.
        weights: by their Hugging Face names; without `lm_head.weight` the embedding is the last projection, too.
        half: store the weights as float16; they are cast to float32 when the graph is loaded.
    """
    writer = _Writer(config, half)
    hidden = writer.add(
        "Gather", [writer.weight("embedding", weights["model.embed_tokens.weight"]), "input_ids"]
    )
    lengths, total = writer.lengths()
    normed = writer.add_norm(hidden, weights["model.layers.0.input_layernorm.weight"])
    for layer in range(writer.layers):
        prefix = f"model.layers.{layer}."
        attended = writer.attention(layer, normed, weights, lengths, total)
        normed, hidden = writer.add_skip_norm(
            attended, hidden, weights[f"{prefix}post_attention_layernorm.weight"]
        )
        made = writer.feed_forward(layer, normed, weights)
        last = layer + 1 == writer.layers
        name = "model.norm.weight" if last else f"model.layers.{layer + 1}.input_layernorm.weight"
        normed, hidden = writer.add_skip_norm(made, hidden, weights[name])
    head = weights.get("lm_head.weight")
    tied = head is None
    final = writer.add("Transpose", ["embedding"], perm=[1, 0]) if tied else writer.weight("head", head.T)
    writer.add("MatMul", [normed, final], ["logits"])
    return writer.model()


class _Writer:
    """Collects nodes and weights, and knows the sizes."""

    def __init__(self, config: Mapping[str, Any], half: bool) -> None:
        self.layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._kv_heads: int = config.get("num_key_value_heads", self._heads)
        self._head_dim: int = config.get("head_dim") or config["hidden_size"] // self._heads
        self._vocabulary: int = config["vocab_size"]
        self._epsilon: float = config["rms_norm_eps"]
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._counted = 0
        self._add_rotations(config["max_position_embeddings"], config.get("rope_theta", 10_000.0))

    def add(
        self,
        kind: str,
        inputs: list[str],
        outputs: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """One node; gives the name of its first output."""
        self._counted += 1
        outputs = outputs or [f"{kind}_{self._counted}"]
        name = f"{kind}_{self._counted}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A tensor that is stored as it is."""
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name: str, values: NDArray[np.float32]) -> str:
        """A tensor that is stored as float16 where that is wanted, and read as float32."""
        if not self._half:
            return self.constant(name, values)
        stored = self.constant(f"{name}.half", values.astype(np.float16))
        return self.add("Cast", [stored], [name], to=TensorProto.FLOAT)

    def lengths(self) -> tuple[str, str]:
        """What GroupQueryAttention asks for: each row's last index, int32 [batch], and the longest length, int32 []."""
        one = self.constant("one", np.array([1], np.int64))
        counted = self.add("ReduceSum", ["attention_mask", one], keepdims=0)  # int64 [batch]
        last = self.add("Cast", [self.add("Sub", [counted, one])], to=TensorProto.INT32)
        length = self.add("Shape", ["attention_mask"], start=1, end=2)  # int64 [1]
        scalar = self.add("Squeeze", [length])
        return last, self.add("Cast", [scalar], to=TensorProto.INT32)

    def add_norm(self, hidden: str, weight: NDArray[np.float32]) -> str:
        """RMSNorm (Zhang and Sennrich 2019), which ONNX Runtime knows by this name."""
        scale = self.constant(f"norm_{self._counted}", weight)
        return self.add(
            "SimplifiedLayerNormalization", [hidden, scale], axis=-1, epsilon=self._epsilon, stash_type=1
        )

    def add_skip_norm(self, made: str, skipped: str, weight: NDArray[np.float32]) -> tuple[str, str]:
        """RMSNorm of the sum of both, and the sum."""
        scale = self.constant(f"norm_{self._counted}", weight)
        normed, total = f"normed_{self._counted}", f"sum_{self._counted}"
        self.add(
            "SkipSimplifiedLayerNormalization",
            [made, skipped, scale],
            [normed, "", "", total],
            domain=_CONTRIB,
            epsilon=self._epsilon,
        )
        return normed, total

    def attention(
        self, layer: int, normed: str, weights: Mapping[str, NDArray[np.float32]], lengths: str, total: str
    ) -> str:
        """Attention of one layer: [batch, sequence, hidden] in and out."""
        prefix = f"model.layers.{layer}.self_attn."
        joined = np.concatenate(
            [weights[f"{prefix}{part}_proj.weight"] for part in "qkv"]
        )  # [q + k + v, hidden]
        packed = self.add("MatMul", [normed, self.weight(f"layer_{layer}.qkv", joined.T)])
        if f"{prefix}q_proj.bias" in weights:
            bias = np.concatenate([weights[f"{prefix}{part}_proj.bias"] for part in "qkv"])  # [q + k + v]
            packed = self.add("Add", [packed, self.constant(f"layer_{layer}.bias", bias)])
        past, present = f"past_key_values.{layer}.", f"present.{layer}."
        attended = f"attended_{layer}"
        self.add(
            "GroupQueryAttention",
            [packed, "", "", f"{past}key", f"{past}value", lengths, total, "cosines", "sines"],
            [attended, f"{present}key", f"{present}value"],
            domain=_CONTRIB,
            num_heads=self._heads,
            kv_num_heads=self._kv_heads,
            do_rotary=1,
        )
        out = weights[f"{prefix}o_proj.weight"].T
        return self.add("MatMul", [attended, self.weight(f"layer_{layer}.out", out)])

    def feed_forward(self, layer: int, normed: str, weights: Mapping[str, NDArray[np.float32]]) -> str:
        """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x))."""
        prefix = f"model.layers.{layer}.mlp."
        joined = np.concatenate([weights[f"{prefix}{part}_proj.weight"] for part in ("gate", "up")])
        both = self.add("MatMul", [normed, self.weight(f"layer_{layer}.gate_up", joined.T)])
        gate, up = f"gate_{layer}", f"up_{layer}"
        self.add("Split", [both], [gate, up], axis=-1, num_outputs=2)
        opened = self.add("Mul", [gate, self.add("Sigmoid", [gate])])
        down = self.weight(f"layer_{layer}.down", weights[f"{prefix}down_proj.weight"].T)
        return self.add("MatMul", [self.add("Mul", [opened, up]), down])

    def model(self) -> onnx.ModelProto:
        """What was written, with its inputs and outputs."""
        floats, whole = TensorProto.FLOAT, TensorProto.INT64
        cache = ["batch", self._kv_heads, "past_sequence", self._head_dim]
        grown = ["batch", self._kv_heads, "total_sequence", self._head_dim]
        parts = [(layer, part) for layer in range(self.layers) for part in ("key", "value")]
        value = helper.make_tensor_value_info
        inputs = [
            value("input_ids", whole, ["batch", "sequence"]),
            value("attention_mask", whole, ["batch", "total_sequence"]),
            *(value(f"past_key_values.{layer}.{part}", floats, cache) for layer, part in parts),
        ]
        outputs = [
            value("logits", floats, ["batch", "sequence", self._vocabulary]),
            *(value(f"present.{layer}.{part}", floats, grown) for layer, part in parts),
        ]
        graph = helper.make_graph(self._nodes, "llama", inputs, outputs, self._weights)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="brigantine")

    def _add_rotations(self, positions: int, theta: float) -> None:
        """Rotary position embedding (Su et al. 2021): cosines and sines, each float32 [positions, head_dim / 2]."""
        half = self._head_dim // 2
        frequencies = 1 / theta ** (np.arange(half, dtype=np.float64) / half)
        angles = np.arange(positions)[:, None] * frequencies
        self.constant("cosines", np.cos(angles).astype(np.float32))
        self.constant("sines", np.sin(angles).astype(np.float32))
