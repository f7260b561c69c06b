"""The model of the text benchmark in its peers' layouts, made from what is shipped: the same weights for all.

`hugging_face` takes the weights out of the graph, under the names that `transformers` knows; `genai` lays the graph
itself beside the file that onnxruntime-genai's generator wants.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

SHIPPED = Path(__file__).parent.parent / "plugins/brigantine_text/models"
_NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")

Weights = dict[str, NDArray[np.float32]]


def model_folder(name: str) -> Path:
    """A model's folder, by the name of one that is shipped, or by its path."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name).resolve()
    if not (folder / "model.onnx").is_file():
        raise SystemExit(f"--model: expected a shipped text model or a folder with model.onnx, got {name}")
    return folder


def hugging_face(model: Path, folder: Path) -> Path:
    """Write `model` as a Hugging Face LlamaForCausalLM."""
    config = json.loads((model / "config.json").read_bytes())
    weights = weights_of(onnx.load(model / "model.onnx"), config)
    facts = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": len(weights["model.layers.0.mlp.gate_proj.weight"]),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(facts | config, indent=2))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def genai(model: Path, folder: Path, threads: int | None) -> Path:
    """Write `model` as a folder of onnxruntime-genai; `threads` None: as many as it takes by itself."""
    config = json.loads((model / "config.json").read_bytes())
    heads: int = config["num_attention_heads"]
    options = {} if threads is None else {"intra_op_num_threads": threads}
    end = config.get("eos_token_id", 0)
    context: int = config["max_position_embeddings"]
    cache = {f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")}
    grown = {f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")}
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": [], **options},
        "filename": "model.onnx",
        "head_size": config.get("head_dim") or config["hidden_size"] // heads,
        "hidden_size": config["hidden_size"],
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **cache},
        "outputs": {"logits": "logits", **grown},
        "num_attention_heads": heads,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_key_value_heads": config.get("num_key_value_heads", heads),
    }
    described = {
        "model": {
            "bos_token_id": config.get("bos_token_id", end),
            "context_length": context,
            "decoder": decoder,
            "eos_token_id": end,
            "pad_token_id": end,
            "type": "llama",
            "vocab_size": config["vocab_size"],
        },
        "search": {"max_length": context, "do_sample": False, "num_beams": 1, "past_present_share_buffer": True},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / "model.onnx", folder / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps(described, indent=2))
    return folder


def weights_of(graph: onnx.ModelProto, config: Mapping[str, Any]) -> Weights:
    """The weights in a graph that `brigantine_training.language.graph` has written, by their Hugging Face names.

    Raises:
        SystemExit: it is another graph, or one with 8-bit weights.
    """
    stored = {one.name.removesuffix(".half"): one for one in graph.graph.initializer}
    layers: int = config["num_hidden_layers"]
    norms = [node.input[_scale(node)] for node in graph.graph.node if node.op_type in _NORMS]
    wanted = [
        f"layer_{layer}.{part}" for layer in range(layers) for part in ("qkv", "out", "gate_up", "down")
    ]
    missing = [name for name in ("embedding", *wanted) if name not in stored]
    if missing or len(norms) != 2 * layers + 1:
        raise SystemExit(f"the graph has not the weights that the benchmark knows, missing are {missing[:4]}")

    def read(name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(stored[name]).astype(np.float32)

    weights = {"model.embed_tokens.weight": read("embedding"), "model.norm.weight": read(norms[-1])}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        weights[f"{prefix}input_layernorm.weight"] = read(norms[2 * layer])
        weights[f"{prefix}post_attention_layernorm.weight"] = read(norms[2 * layer + 1])
        weights |= _of_layer(prefix, {part: read(f"layer_{layer}.{part}").T for part in _PARTS}, config)
    return {name: np.ascontiguousarray(values) for name, values in weights.items()}


_PARTS = ("qkv", "out", "gate_up", "down")


def _of_layer(prefix: str, parts: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]) -> Weights:
    """The matrices of a layer, each [out, in]; the graph has some of them joined."""
    heads: int = config["num_attention_heads"]
    head_dim: int = config.get("head_dim") or config["hidden_size"] // heads
    wide = heads * head_dim
    narrow: int = config.get("num_key_value_heads", heads) * head_dim
    query, key, value = np.split(parts["qkv"], [wide, wide + narrow])
    gate, up = np.split(parts["gate_up"], 2)
    return {
        f"{prefix}self_attn.q_proj.weight": query,
        f"{prefix}self_attn.k_proj.weight": key,
        f"{prefix}self_attn.v_proj.weight": value,
        f"{prefix}self_attn.o_proj.weight": parts["out"],
        f"{prefix}mlp.gate_proj.weight": gate,
        f"{prefix}mlp.up_proj.weight": up,
        f"{prefix}mlp.down_proj.weight": parts["down"],
    }


def _scale(node: onnx.NodeProto) -> int:
    """Which of its inputs is the weight of a norm."""
    return 1 if node.op_type == _NORMS[0] else 2
