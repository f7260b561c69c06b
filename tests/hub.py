"""Folders of language models as `save_pretrained` writes them, with random weights and a tokenizer of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brigantine_training import torchvision_guard  # noqa: F401 - before transformers  # isort: skip

import torch
import transformers
from brigantine_training.language.tokenizer import train_tokenizer
from transformers import PreTrainedModel

__all__ = ["ARCHITECTURES", "CONTEXT", "ENGLISH", "VOCABULARY", "greedy", "hub_folder"]

VOCABULARY, CONTEXT = 288, 128
ENGLISH = "the ship sails at dawn, the wind is fair; she carries tea, silk and a cat. " * 8

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": CONTEXT},
    "Llama": _SIZES | {"tie_word_embeddings": False},
    "Qwen2": _SIZES | {"tie_word_embeddings": True},  # q, k and v with a bias
    "Mistral": _SIZES | {"num_hidden_layers": 1, "sliding_window": 24},
    "Mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 1},
}


def hub_folder(folder: Path, architecture: str, **changes: Any) -> PreTrainedModel:
    """Write such a model to `folder`; gives the network."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{architecture}Config")(**ARCHITECTURES[architecture] | ends | changes)
    network: PreTrainedModel = getattr(
        transformers, f"{architecture}ForCausalLM" if architecture != "GPT2" else "GPT2LMHeadModel"
    )(config)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(
                torch.randn_like(weight) * 0.3 + ("norm" in name or "ln_" in name) * ("bias" not in name)
            )
    bars = transformers.utils.logging
    bars.disable_progress_bar()
    network.eval().save_pretrained(folder)
    bars.enable_progress_bar()
    train_tokenizer(ENGLISH, VOCABULARY).save(str(folder / "tokenizer.json"))
    return network


def greedy(network: PreTrainedModel, prompt: Sequence[int], length: int) -> list[int]:
    """The tokens by which `transformers` goes on."""
    ids = torch.tensor([prompt])
    generate: Any = network.generate
    made = generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, pad_token_id=0
    )
    return made[0, len(prompt) :].tolist()
