"""A tiny language model with random weights, whose tokenizer knows some English."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from brigantine.model import MANIFEST, Manifest, TensorSpec, sha256_of
from brigantine_training.language.graph import llama_graph
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["CONFIG", "language_model", "scribble_model", "scribble_weights"]

CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,  # of 16, the least that GroupQueryAttention takes
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 48,
    "vocab_size": 288,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 160,
    "bos_token_id": 0,
    "eos_token_id": None,
}
_ENGLISH = "the ship sails at dawn, the wind is fair; she carries tea, silk and a cat. " * 8
_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}


def scribble_model(
    folder: Path,
    name: str = "scribble",
    max_batch: int = 8,
    with_positions: bool = False,
    masked: bool = False,
    **config: Any,
) -> Path:
    """The folder of such a model, below `folder`.

    `with_positions` its graph adds these to its logits; `masked` it reads its mask in a way that nobody knows.
    """
    config = CONFIG | config
    graph = llama_graph(config, scribble_weights(config))
    if with_positions:
        _add_positions(graph.graph)
    if masked:
        graph.graph.node.insert(0, onnx.helper.make_node("Identity", ["attention_mask"], ["seen"]))
        for node in graph.graph.node[1:]:
            node.input[:] = ["seen" if name == "attention_mask" else name for name in node.input]
    return language_model(folder / name, graph, config, max_batch)


def language_model(path: Path, graph: onnx.ModelProto, config: dict[str, Any], max_batch: int) -> Path:
    """The folder `path` of a model with this graph."""
    path.mkdir(parents=True)
    onnx.save(graph, path / "model.onnx")
    (path / "config.json").write_text(json.dumps(config))
    _tokenizer(config["vocab_size"]).save(str(path / "tokenizer.json"))
    manifest = Manifest(
        name=path.name,
        plugin="text",
        files={file.name: sha256_of(file) for file in path.iterdir()},
        inputs=tuple(map(_spec, graph.graph.input)),
        outputs=tuple(map(_spec, graph.graph.output)),
        max_batch=max_batch,
    )
    (path / MANIFEST).write_text(manifest.model_dump_json())
    return path


def scribble_weights(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Random weights by their Hugging Face names."""
    rng = np.random.default_rng(0)
    width, inner = config["hidden_size"], config["intermediate_size"]
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
        }
        parts |= {
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
        }
        parts |= {"mlp.down_proj": (width, inner), "input_layernorm": (), "post_attention_layernorm": ()}
        shapes |= {f"model.layers.{layer}.{part}": shape for part, shape in parts.items()}
    shapes["model.norm"] = ()
    return {
        f"{name}.weight": (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[-1])).astype(np.float32)
        if shape
        else np.ones(width, np.float32)
        for name, shape in shapes.items()
    }


def _add_positions(graph: onnx.GraphProto) -> None:
    [made] = [node for node in graph.node if node.output[0] == "logits"]
    made.output[0] = "pure"
    shape = ["batch", "sequence"]
    graph.input.append(onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, shape))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "last_axis"))
    graph.node.extend([
        onnx.helper.make_node("Cast", ["position_ids"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Unsqueeze", ["floats", "last_axis"], ["columns"]),
        onnx.helper.make_node("Add", ["pure", "columns"], ["logits"]),
    ])  # fmt: skip


def _tokenizer(size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_ENGLISH], trainer)
    return tokenizer


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=_DTYPES[kind.elem_type], shape=shape)  # type: ignore[arg-type]
