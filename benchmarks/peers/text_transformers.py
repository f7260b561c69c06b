"""transformers' own `generate`: see `text_worker`. `python text_transformers.py FOLDER THREADS`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from text_worker import Writer, serve


def load(folder: str, threads: int) -> Writer:
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    end = model.config.eos_token_id
    model.generation_config.pad_token_id = end[0] if isinstance(end, list) else end

    def write(prompt: Sequence[int], most: int) -> list[int]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                use_cache=True,
            )
        return made[0, len(prompt) :].tolist()

    return write


serve(
    load(sys.argv[1], int(sys.argv[2])),
    {"torch": torch.__version__, "transformers": transformers.__version__},
)
