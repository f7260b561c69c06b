"""Language models of some 30 M parameters to measure with: folders of Hugging Face's kind, with random weights.

    python benchmarks/hub_models.py DIR
    brigantine models import DIR/gpt2 --plugin text --name gpt2
    python benchmarks/gpu_text.py --model gpt2

writes DIR/gpt2, DIR/llama, DIR/qwen3 and DIR/gemma2, each the same at each call. Their tokenizer knows bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brigantine_training import torchvision_guard  # noqa: F401 - before transformers  # isort: skip

import torch
import transformers
from brigantine_training.language.tokenizer import train_tokenizer

_VOCABULARY, _BYTES = 8192, 288
_LAYERS, _HEADS, _WIDTH, _CONTEXT = 8, 8, 512, 1024
_ENDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": None}
_LLAMA: dict[str, Any] = _ENDS | {
    "vocab_size": _VOCABULARY,
    "hidden_size": _WIDTH,
    "intermediate_size": 1408,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": 4,
    "max_position_embeddings": _CONTEXT,
}
_GPT2: dict[str, Any] = _ENDS | {
    "vocab_size": _VOCABULARY,
    "n_layer": _LAYERS,
    "n_embd": _WIDTH,
    "n_head": _HEADS,
    "n_positions": _CONTEXT,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    configurations = {
        "gpt2": transformers.GPT2Config(**_GPT2),
        "llama": transformers.LlamaConfig(**_LLAMA),
        "qwen3": transformers.Qwen3Config(**_LLAMA, head_dim=64),
        "gemma2": transformers.Gemma2Config(**_LLAMA, head_dim=64, sliding_window=64),
    }
    tokenizer = train_tokenizer("", _BYTES)
    for name, configuration in configurations.items():
        torch.manual_seed(0)
        network = transformers.AutoModelForCausalLM.from_config(configuration)
        network.save_pretrained(folder / name)
        tokenizer.save(str(folder / name / "tokenizer.json"))
        print(f"{folder / name}: {sum(one.numel() for one in network.parameters()):,} parameters")


if __name__ == "__main__":
    main()
