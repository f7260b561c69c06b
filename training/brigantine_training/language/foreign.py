"""Foreign: a folder with the weights of any causal language model of Hugging Face's becomes a graph with a cache.

A model that is a Llama, but for a bias, gets the graph that is written for one here. Any other is traced as
`transformers` computes it (`tracing`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

# Before transformers: it imports torchvision, which may need mending.
from .. import torchvision_guard  # noqa: F401  # isort: skip

import numpy as np
import onnx_ir
import torch
import transformers
from brigantine.errors import ModelInvalid
from brigantine.exporters import Exported
from brigantine.model import GRAPH
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from .attending import OPERATOR
from .graph import llama_graph
from .tracing import CacheSizes, cache_argument, first_line, traced

__all__ = ["export_folder"]

_INLINE_BYTES = 2**30
"""Weights up to so many bytes are in the graph itself; protobuf writes 2 GiB at most."""
_LLAMAS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
_KERNEL_HEAD = 16
"""GroupQueryAttention turns heads whose size is a multiple of this."""


def export_folder(folder: Path, into: Path) -> Exported:
    """Export the model in `folder` to `into` as model.onnx, with model.onnx.data beside it where it is large.

    Nothing is downloaded, and no code of the folder is run.

    Raises:
        ModelInvalid: it is no causal language model with plain weights, or cannot be exported.
    """
    _check(folder)
    with _quiet():
        network = _load(folder)
        sizes = _sizes(folder, network)
        if _is_llama(network, sizes):
            how = {"exporter": "written", "attention": OPERATOR}
            _write_llama(network, into, half=_is_half(folder))
        else:
            how = {"exporter": "traced", "attention": _write_traced(folder, network, sizes, into)}
    facts = how | {"transformers": transformers.__version__, "torch": torch.__version__}

    @torch.inference_mode()
    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        return network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()

    return Exported(facts, logits)


def _check(folder: Path) -> None:
    """That the folder has what can be exported safely.

    Raises:
        ModelInvalid: it has not.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelInvalid(
            f"{file}: expected the model's configuration, got {error}; copy it there"
        ) from error
    if "auto_map" in config:
        raise ModelInvalid(
            f"{file}: expected an architecture that transformers has, got code of its own (auto_map: "
            f"{', '.join(map(str, config['auto_map'].values()))}), which is not run; convert it to one of those, or "
            "export it elsewhere and import its graph"
        )
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelInvalid(
            f"{file}: expected plain weights, got weights that are quantised by {method}; take the folder that they "
            "were made of"
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelInvalid(
            f"{folder}: expected a whole model, got an adapter (adapter_config.json); merge it into its model "
            "with peft's merge_and_unload(), and save that"
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in folder.glob(kind))
        got = f"{', '.join(pickles)}, pickles, which can run any code" if pickles else "none"
        remedy = (
            "if you trust them, load them with transformers and save_pretrained(folder)"
            if pickles
            else "copy them"
        )
        raise ModelInvalid(f"{folder}: expected weights as *.safetensors, got {got}; {remedy}")


def _load(folder: Path) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise ValueError("it has an encoder, too")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",  # whatever the folder asks for, which may be code on the hub
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises what it likes
        raise ModelInvalid(
            f"{folder}: expected a causal language model that transformers {transformers.__version__} has, got: "
            f"{first_line(error)}; upgrade transformers, or export it elsewhere and import its graph"
        ) from error
    network, found = loaded
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelInvalid(
            f"{folder}: expected all weights of {type(network).__name__}, got them without "
            f"{', '.join(missing[:3])}{more}; copy all files of the weights"
        )
    return network.eval()


def _sizes(folder: Path, network: PreTrainedModel) -> CacheSizes:
    """The cache that the network keeps.

    Raises:
        ModelInvalid: it keeps none of keys and values, or one whose layers differ.
    """
    with torch.inference_mode():
        made = network(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=True)
    layers = getattr(made.get(cache_argument(network)), "layers", [])
    parts = [getattr(layer, part, None) for layer in layers for part in ("keys", "values")]
    shapes = {tuple(part.shape) if isinstance(part, Tensor) else () for part in parts}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4:
        got = f"{len(layers)} layers of {', '.join(sorted({type(layer).__name__ for layer in layers})) or 'none'}"
        raise ModelInvalid(
            f"{folder}: expected {type(network).__name__} to keep keys and values of one size for each layer, got "
            f"{got}; only transformers whose layers all attend in the same way can be served"
        )
    return CacheSizes(len(layers), shape[1], shape[3])


def _is_llama(network: PreTrainedModel, sizes: CacheSizes) -> bool:
    """Whether `llama_graph` computes the same."""
    config = network.config
    rotary = getattr(config, "rope_parameters", None) or {}
    biased = {name.rsplit(".", 2)[1] for name in network.state_dict() if name.endswith(".bias")}
    window = getattr(config, "sliding_window", None)
    return (
        type(network).__name__ in _LLAMAS
        and config.hidden_act == "silu"
        and rotary.get("rope_type") == "default"
        and rotary.get("partial_rotary_factor", 1.0) == 1
        and biased in (set(), {"q_proj", "k_proj", "v_proj"})
        and (window is None or window >= config.max_position_embeddings)
        and sizes.head_size % _KERNEL_HEAD == 0
    )


def _is_half(folder: Path) -> bool:
    """Whether all weights are stored as float16, so that a graph with such weights loses nothing."""
    kinds: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as weights:
            kinds |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - it is no dict
    return kinds == {"F16"}


def _write_llama(network: PreTrainedModel, into: Path, half: bool) -> None:
    config = network.config.to_dict() | {"rope_theta": network.config.rope_parameters["rope_theta"]}
    weights = {name: weight.numpy() for name, weight in network.state_dict().items()}
    if network.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    onnx_ir.save(
        onnx_ir.from_proto(llama_graph(config, weights, half)), into / GRAPH, external_data=_beside(network)
    )


def _write_traced(folder: Path, network: PreTrainedModel, sizes: CacheSizes, into: Path) -> str:
    """Write the graph; gives how it attends."""
    try:
        made = traced(network, sizes)
    except Exception as error:  # whatever the exporter makes of an architecture
        raise ModelInvalid(
            f"{folder}: expected {type(network).__name__} to be exported by torch {torch.__version__}, got: "
            f"{first_line(error)}; upgrade torch and transformers, or export it elsewhere and import its graph"
        ) from error
    onnx_ir.save(made.graph, into / GRAPH, external_data=_beside(network))
    return made.attention


def _beside(network: PreTrainedModel) -> str | None:
    """The file for the weights, where they are too large for the graph."""
    size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    return f"{GRAPH}.data" if size > _INLINE_BYTES else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers and the exporter say of their own code."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
