"""A language model's graph alone on a GPU, without sampling and HTTP: a chunk of a prompt, and a step of so many texts.

    python benchmarks/gpu_text.py
    python benchmarks/gpu_text.py --model NAME --device cpu

On a GPU in each way: as a CUDA graph and without one, in half precision, and as the file is. What a step needs crosses
the bus: tokens in, logits out. What is written greedily is compared with what the CPU writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from brigantine.decoder import CHUNK, Decoder
from brigantine.session import Session, SessionOptions, runtime
from brigantine.store import Store
from gpu import ROUNDS, card, rate

_WAYS = {
    "CUDA graph": SessionOptions(),
    "kernel by kernel": SessionOptions(cuda_graphs=False),
    "as the file is": SessionOptions(gpu_fp16=False),
}
_CPU = SessionOptions(device="cpu")
_CONTEXT = 256
_WRITTEN = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="shakespeare", help="one that ships, or was imported")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    model = Store().get(options.model).open()
    on_cpu = Decoder(Session.open(model, _CPU), _CONTEXT)
    ways = {"CPU, one thread": on_cpu}
    if options.device == "cuda":
        for way, chosen in _WAYS.items():
            ways |= {way: Decoder(Session.open(model, chosen, require_gpu=True), _CONTEXT)}
    where = card() if options.device == "cuda" else "CPU"
    print(f"`{model.name}`, ONNX Runtime {runtime().__version__}, {where}, medians of {ROUNDS} windows\n")
    print(
        f"| way | {CHUNK} tokens read, us | step of 1, us | step of all slots, us | tokens/s | as the CPU's |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    expected = written(on_cpu)
    for way, decoder in ways.items():
        print(row(way, decoder, expected), flush=True)


def row(way: str, decoder: Decoder, expected: Sequence[int]) -> str:
    made = written(decoder)
    agreeing = next((at for at in range(_WRITTEN) if made[at] != expected[at]), _WRITTEN)
    prompt = list(range(CHUNK))
    places = []
    while (taken := decoder.place(prompt, reuse=False)) is not None:
        places.append(taken[0])
    slots = len(places)
    chunk = _us(lambda: decoder.read(places[0], prompt, 0))
    for place in places:
        decoder.read(place, prompt, 0)
    one = _us(lambda: decoder.decode(places[:1], [1], [CHUNK]))
    every = _us(lambda: decoder.decode(places, [1] * slots, [CHUNK] * slots))
    shown = f"{chunk:,.0f} | {one:,.0f} | {every:,.0f} ({slots}) | {slots / every * 1e6:,.0f}"
    return f"| {way} | {shown} | {agreeing} of {_WRITTEN} tokens |"


def written(decoder: Decoder) -> list[int]:
    """What comes greedily after a few tokens."""
    prompt = [int(token) for token in np.random.default_rng(0).integers(1, 200, 7)]
    taken = decoder.place(prompt, reuse=False)
    assert taken is not None, "nobody else has a place"
    place, tokens = taken[0], [int(decoder.read(taken[0], prompt, 0)[-1].argmax())]
    for at in range(_WRITTEN - 1):
        tokens.append(int(decoder.decode([place], tokens[-1:], [len(prompt) + at])[0].argmax()))
    return tokens


def _us(work: Callable[[], object]) -> float:
    """Microseconds of one call."""
    return 1e6 / rate(work, 1)


if __name__ == "__main__":
    main()
