"""Text: one stream beside transformers and onnxruntime-genai, 16 streams at once, and who comes meanwhile.

    python benchmarks/text.py --home DIR --out text.jsonl
    python benchmarks/text.py --report text.jsonl

In each round all are started anew and write with the same weights, one after the other: the product without HTTP, its
peers, and the product behind HTTP with one streaming client and with 16, each on a connection of its own. Peers have
their own virtual environment below --home. Everything is greedy or seeded, and what is written is checked.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import httpx
import numpy as np
from brigantine_text.tokens import Vocabulary
from report import MOST_FOREIGN
from text_load import Site, clients
from text_model import genai, hugging_face, model_folder
from text_report import report
from text_servers import Worker, peers_python, serving, writing
from watch import adopt_orphans, watching

STREAMS = 16
PROMPT = 32
"""Tokens of a prompt; the longer one has four times as many. Each is drawn anew, so that no beginning is reused."""
TEXT = 192
"""Tokens of a text: with its prompt it fits into a context of 256."""
_GREEDY = 64
_OPENINGS = ("ROMEO:\n", "JULIET:\nO ", "First Citizen:\n", "KING RICHARD III:\nNow is the winter of")
_AGAIN = 8
"""Texts of each window that are made again alone."""
_EPISODES = (0, PROMPT, 4 * PROMPT)
"""The newcomer's prompt; 0 for the control, in which nobody comes."""
_SEEDS_A_WINDOW = 100_000
_TURNS = 4
"""Of those who write one text after the other, in a round."""
_HTTP = "http greedy"


@dataclass
class Bench:
    """What all rounds share."""

    model: Path
    vocabulary: Vocabulary
    seconds: float
    load_s: float
    episodes: int
    out: TextIO
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    seed: int = 0

    def write(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})
        print(json.dumps(self.records[-1]), file=self.out, flush=True)

    def prompts(self, count: int, length: int = PROMPT) -> list[list[int]]:
        """Tokens that stand for something, at random."""
        known = [token for token, piece in enumerate(self.vocabulary.pieces) if piece]
        return self.rng.choice(known, (count, length)).tolist()

    def next_seed(self) -> int:
        self.seed += _SEEDS_A_WINDOW
        return self.seed

    def window(self, number: int, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure one window, with what the processor did meanwhile."""
        with watching() as usage:
            measured = measure()
        if measured.get("faults"):
            raise RuntimeError(
                f"{name}: {len(measured['faults'])} faults, the first: {measured['faults'][0]}"
            )
        kept = {key: value for key, value in measured.items() if key not in ("texts", "faults")}
        cpu = {"server_cores": usage.server_s / usage.wall_s, "client_cores": usage.ours_s / usage.wall_s}
        self.write("window", round=number, series=name, foreign=usage.foreign, **cpu, **kept)
        rate = f"{kept['tokens_per_s']:.0f} tokens/s" if "tokens_per_s" in kept else ""
        print(f"  {name}: {rate}, {usage.foreign:.1%} foreign", file=sys.stderr)
        return measured


def one_stream(bench: Bench, number: int, workers: dict[str, Worker], port: int) -> None:
    """All who write without HTTP, and the product behind it, each in its turn, some times a round.

    What else uses the machine's memory changes within seconds: those who are compared write shortly after each other.
    """
    site, seconds = Site(port, bench.model.name, TEXT, 0.0), bench.seconds / _TURNS
    names = [*workers, _HTTP]

    def measure(name: str, prompts: list[list[int]]) -> dict[str, Any]:
        if name == _HTTP:
            return _load(bench, site, 1, seconds)
        made = workers[name].write(prompts, TEXT, seconds)
        return {"tokens_per_s": sum(map(len, made["texts"])) / made["seconds"]}

    for turn in range(number * _TURNS, (number + 1) * _TURNS):
        prompts = bench.prompts(64)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            bench.window(turn, name, partial(measure, name, prompts))


def _load(bench: Bench, site: Site, streams: int, seconds: float, warm_s: float = 0.5) -> dict[str, Any]:
    """So many clients, each of which has one text after the other written."""
    return clients(
        "closed", site, prompts=bench.prompts(2000), streams=streams,
        warm_s=warm_s, seconds=seconds, seed=bench.next_seed(),
    )  # fmt: skip


def behind_http(bench: Bench, number: int, port: int, alone: int) -> None:
    """One client and 16 with the default workers, and a newcomer beside 15 with one worker on port `alone`."""
    site, brief = Site(port, bench.model.name, TEXT), Site(port, bench.model.name, 4)
    bench.window(number, "http", lambda: _load(bench, site, 1, bench.seconds))
    bench.window(number, "http idle", lambda: _load(bench, brief, 1, bench.seconds))
    made = bench.window(number, f"http {STREAMS}", lambda: _load(bench, site, STREAMS, bench.load_s, 1.0))
    check_alone(bench, site, made["texts"])
    late = [length for _ in range(bench.episodes) for length in _EPISODES]
    bench.window(
        number,
        "newcomers",
        lambda: clients(
            "arrivals", Site(alone, bench.model.name, TEXT), prompts=bench.prompts(STREAMS - 1),
            late=[bench.prompts(1, length)[0] if length else None for length in late], seed=bench.next_seed(),
        ),
    )  # fmt: skip


def check_alone(bench: Bench, site: Site, texts: Sequence[tuple[int, list[int], str]]) -> None:
    """Some of the texts that were made among others are the same when they are made alone."""
    some = [texts[index] for index in bench.rng.choice(len(texts), min(_AGAIN, len(texts)), replace=False)]
    wrong = 0
    with httpx.Client(timeout=60) as client:
        for seed, prompt, text in some:
            asked = {"model": site.model, "prompt": prompt, "seed": seed, "max_tokens": site.most}
            answer = client.post(
                f"http://127.0.0.1:{site.port}/v1/completions", json=asked
            ).raise_for_status()
            wrong += answer.json()["choices"][0]["text"] != text
    bench.write("check", what="the same alone", wrong=wrong, of=len(some))


def check_greedy(bench: Bench, workers: dict[str, Worker], port: int) -> None:
    """The product's greedy tokens are those of its peers."""
    prompts = [*map(bench.vocabulary.encode, _OPENINGS), *bench.prompts(4)]
    ours: list[list[bytes]] = []
    with httpx.Client(timeout=60) as client:
        for prompt in prompts:
            asked = {"prompt": prompt, "max_tokens": _GREEDY, "temperature": 0.0, "logprobs": 0}
            url = f"http://127.0.0.1:{port}/v1/models/{bench.model.name}/generate"
            answer = client.post(url, json=asked, headers={"accept": "application/json"}).raise_for_status()
            ours.append([bytes(token["bytes"]) for token in answer.json()["data"][0]["logprobs"]])
    for name, worker in workers.items():
        if name.startswith("brigantine"):
            continue
        theirs = [
            [bench.vocabulary.pieces[token] for token in text]
            for text in worker.write(prompts, _GREEDY)["texts"]
        ]
        wrong = sum(one != other for one, other in zip(ours, theirs, strict=True))
        bench.write("check", what=f"greedy as {name}", wrong=wrong, of=len(prompts))


def run(bench: Bench, home: Path, rounds: int) -> None:
    python, laid = peers_python(home), home / "text" / bench.model.name
    face = hugging_face(bench.model, laid / "hf")
    commands: dict[str, Sequence[str | Path]] = {
        **{
            name: [sys.executable, Path(__file__).with_name("text_inside.py"), bench.model, threads]
            for name, threads in (("brigantine", "1"), ("brigantine 2", "2"))
        },
        **{f"transformers {n}": [python, "text_transformers.py", face, str(n)] for n in (1, 2)},
        "genai": [python, "text_genai.py", genai(bench.model, laid / "genai", None)],
        **{
            f"genai {n}": [python, "text_genai.py", genai(bench.model, laid / f"genai-{n}", n)]
            for n in (1, 2)
        },
    }
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        # All anew: where its weights come to lie makes a process some tenth faster or slower for as long as it lives.
        with (
            writing(commands, home) as workers,
            serving(bench.model, home) as (port, _),
            # Each part as it is made: else what waits for the next piece would hide what waits for a step.
            serving(bench.model, home, 1, BRIGANTINE_STREAM_INTERVAL_S="0") as (alone, _),
        ):
            if not number:
                bench.write("run", **facts(bench, workers), rounds=rounds)
                check_greedy(bench, workers, port)
            one_stream(bench, number, workers, port)
            behind_http(bench, number, port, alone)


def facts(bench: Bench, workers: dict[str, Worker]) -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    config = json.loads((bench.model / "config.json").read_bytes())
    shape = {key: config[key] for key in ("num_hidden_layers", "hidden_size", "vocab_size")}
    versions = {name: metadata.version(name) for name in ("onnxruntime", "numpy")}
    return {
        "model": bench.model.name, "shape": shape, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu[1] if cpu else platform.machine(), "python": platform.python_version(),
        "versions": versions | {name: found for worker in workers.values() for name, found in worker.versions.items()},
        "seconds": bench.seconds, "load_s": bench.load_s, "streams": STREAMS, "prompt": PROMPT, "text": TEXT,
        "command": "python benchmarks/text.py " + " ".join(sys.argv[1:]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--home", type=Path, default=Path("~/.cache/brigantine-bench"), help="environments and logs"
    )
    parser.add_argument("--model", default="shakespeare", help="a shipped model, or a model's folder")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one stream, in a round")
    parser.add_argument("--load-s", type=float, default=8.0, help=f"of each window with {STREAMS} streams")
    parser.add_argument("--episodes", type=int, default=4, help="arrivals of each kind in a round")
    parser.add_argument("--out", type=Path, help="where the raw windows go, as JSON lines")
    parser.add_argument("--report", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument(
        "--most-foreign", type=float, default=MOST_FOREIGN, help="share of the machine; more spoils a window"
    )
    options = parser.parse_args()
    if options.report:
        records = [json.loads(line) for line in options.report.read_text().splitlines()]
        print(report(records, options.most_foreign))
        return
    home = options.home.expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through every `finally`
    model = model_folder(options.model)
    with (options.out or home / f"text-{model.name}.jsonl").open("w") as out:
        bench = Bench(model, Vocabulary(model), options.seconds, options.load_s, options.episodes, out)
        run(bench, home, options.rounds)
    print(report(bench.records, options.most_foreign))
    if any(record.get("wrong") for record in bench.records):
        sys.exit(1)


if __name__ == "__main__":
    main()
