"""Hugging Face's layout: a folder that `transformers` loads, and the small files that a served model takes from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from ..config import LanguageConfig
from ..files import replacing
from .network import EPSILON, ROTARY_BASE, SPREAD, Llama
from .tokenizer import END_OF_TEXT, end_of_text

__all__ = ["CONFIG", "TOKENIZER", "network_config", "write_checkpoint", "write_companions"]

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_WEIGHTS = "model.safetensors"


def network_config(config: LanguageConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What `config.json` says of the network: the fields of `LlamaConfig`."""
    end = end_of_text(tokenizer)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.width // config.heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_tokens,
        "rms_norm_eps": EPSILON,
        "rope_theta": ROTARY_BASE,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": SPREAD,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def write_companions(folder: Path, config: LanguageConfig, tokenizer: Tokenizer) -> list[str]:
    """Write everything but the weights into `folder`; gives the names of the files."""
    end = end_of_text(tokenizer)
    files = {
        CONFIG: network_config(config, tokenizer),
        "generation_config.json": {
            "bos_token_id": end,
            "eos_token_id": end,
            "do_sample": True,
            "temperature": 1.0,
            "max_length": config.context_tokens,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.context_tokens,
        },
    }
    for name, values in files.items():
        _write(folder / name, json.dumps(values, indent=2) + "\n")
    _write(folder / TOKENIZER, tokenizer.to_str(pretty=True))
    return [*files, TOKENIZER]


def write_checkpoint(folder: Path, network: Llama, tokenizer: Tokenizer) -> None:
    """Write `network` to `folder`, so that `AutoModelForCausalLM` and `AutoTokenizer` load it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_companions(folder, network.config, tokenizer)
    weights = {
        name: weight.detach().to("cpu", torch.float32).contiguous()
        for name, weight in network.state_dict().items()
    }
    with replacing(folder / _WEIGHTS) as file:
        save_file(weights, file, metadata={"format": "pt"})


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")
