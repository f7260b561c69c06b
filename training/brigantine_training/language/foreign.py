"""Foreign: a folder with the weights of any causal language model of Hugging Face's becomes a graph with a cache.

A model that is a Llama, but for a bias, gets the graph that is written for one here. Any other is traced as
`transformers` computes it. The one thing that is put in its place is the mask: what a token sees is told by positions,
not by places in the cache, so that rows of different lengths lie in one cache, and a window is counted right in it.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any, NamedTuple

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
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from .graph import llama_graph

__all__ = ["export_folder"]

_OPSET = 20
_INLINE_BYTES = 2**30
"""Weights up to so many bytes are in the graph itself; protobuf writes 2 GiB at most."""
_LLAMAS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
_KERNEL_HEAD = 16
"""GroupQueryAttention turns heads whose size is a multiple of this."""


class _Cache(NamedTuple):
    """The sizes of a cache, the same in all layers."""

    layers: int
    heads: int
    head_size: int

    @property
    def names(self) -> list[str]:
        """`<layer>.key` and `.value` of each."""
        return [f"{layer}.{part}" for layer in range(self.layers) for part in ("key", "value")]


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
            how = "written"
            _write_llama(network, into, half=_is_half(folder))
        else:
            how = "traced"
            _write_traced(folder, network, sizes, into)
    facts = {"exporter": how, "transformers": transformers.__version__, "torch": torch.__version__}

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
            f"{_first_line(error)}; upgrade transformers, or export it elsewhere and import its graph"
        ) from error
    network, found = loaded
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelInvalid(
            f"{folder}: expected all weights of {type(network).__name__}, got them without "
            f"{', '.join(missing[:3])}{more}; copy all files of the weights"
        )
    return network.eval()


def _sizes(folder: Path, network: PreTrainedModel) -> _Cache:
    """The cache that the network keeps.

    Raises:
        ModelInvalid: it keeps none of keys and values, or one whose layers differ.
    """
    with torch.inference_mode():
        made = network(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=True)
    layers = getattr(made.get(_cache_argument(network)), "layers", [])
    parts = [getattr(layer, part, None) for layer in layers for part in ("keys", "values")]
    shapes = {tuple(part.shape) if isinstance(part, Tensor) else () for part in parts}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4:
        got = f"{len(layers)} layers of {', '.join(sorted({type(layer).__name__ for layer in layers})) or 'none'}"
        raise ModelInvalid(
            f"{folder}: expected {type(network).__name__} to keep keys and values of one size for each layer, got "
            f"{got}; only transformers whose layers all attend in the same way can be served"
        )
    return _Cache(len(layers), shape[1], shape[3])


def _cache_argument(network: PreTrainedModel) -> str:
    """What the cache is called; transformers renames it."""
    return "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"


def _is_llama(network: PreTrainedModel, sizes: _Cache) -> bool:
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


def _write_traced(folder: Path, network: PreTrainedModel, sizes: _Cache, into: Path) -> None:
    positions = "position_ids" in inspect.signature(network.forward).parameters
    arguments, axes, names = _example(sizes, positions)
    try:
        with _masks_by_position(), torch.no_grad():
            program = torch.onnx.export(
                _WithCache(network, positions),
                arguments,
                dynamo=True,
                opset_version=_OPSET,
                input_names=names,
                output_names=["logits", *(f"present.{name}" for name in sizes.names)],
                dynamic_shapes=axes,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter makes of an architecture
        raise ModelInvalid(
            f"{folder}: expected {type(network).__name__} to be exported by torch {torch.__version__}, got: "
            f"{_first_line(error)}; upgrade torch and transformers, or export it elsewhere and import its graph"
        ) from error
    assert program is not None  # with dynamo=True there is always one
    ClearMetadataAndDocStringPass()(program.model)  # they hold paths of the machine that it ran on
    onnx_ir.save(program.model, into / GRAPH, external_data=_beside(network))


class _WithCache(nn.Module):
    """The network with its cache as tensors."""

    def __init__(self, network: PreTrainedModel, positions: bool) -> None:
        super().__init__()
        self.network = network
        self._cache = _cache_argument(network)
        self._positions = positions

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Tokens [N, T], mask [N, P + T], positions [N, T] and for each layer keys and values [N, H, P, D]; the logits
        [N, T, V] and keys and values [N, H, P + T, D].
        """
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        more: dict[str, Any] = {"position_ids": position_ids} if self._positions else {}
        made = self.network(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=True, **{self._cache: cache}, **more
        )
        grown = made[self._cache].layers
        return made.logits, *(part for layer in grown for part in (layer.keys, layer.values))


def _example(sizes: _Cache, positions: bool) -> tuple[tuple[Any, ...], tuple[Any, ...], list[str]]:
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


def _first_line(error: Exception) -> str:
    """Its class and what it says first: these errors go on for pages."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:300]}"
