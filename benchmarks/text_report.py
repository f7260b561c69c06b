"""The tables of the text benchmark, in markdown, from its raw records."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from report import FEWEST, MOST_FOREIGN

Record = dict[str, Any]
_INSIDE, _INSIDE_2, _HTTP = "brigantine", "brigantine 2", "http greedy"
_NAMES = {
    _INSIDE: "Brigantine, `Engine.generate`",
    _INSIDE_2: "Brigantine, `Engine.generate`, 2 threads",
    _HTTP: "Brigantine, streamed over HTTP",
    "transformers 1": "transformers, 1 thread",
    "transformers 2": "transformers, 2 threads",
    "genai": "onnxruntime-genai, its own threads",
    "genai 1": "onnxruntime-genai, 1 thread",
    "genai 2": "onnxruntime-genai, 2 threads",
}


def report(records: Sequence[Record], most_foreign: float = MOST_FOREIGN) -> str:
    """All tables of one run, without the windows in which others took more than `most_foreign` of the machine."""
    run = next(record for record in records if record["kind"] == "run")
    windows = [
        {**record, "clean": record["foreign"] <= most_foreign}
        for record in records
        if record["kind"] == "window"
    ]
    dropped = sum(not window["clean"] for window in windows)
    shape = run["shape"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines = [
        f"`{run['command']}`: `{run['model']}` ({shape['num_hidden_layers']} layers, {shape['hidden_size']} wide, "
        f"{shape['vocab_size']} tokens), {run['rounds']} rounds, {run['date']}: {run['cpu']}, Python {run['python']}, "
        f"{versions}. Prompts of {run['prompt']} tokens, texts of {run['text']}; one stream "
        f"{run['seconds']:g} s a round, greedy in turns, {run['streams']} streams {run['load_s']:g} s.",
        f"{dropped} of {len(windows)} windows dropped: others took more than {most_foreign:.0%} of the machine.",
        "",
        "### One stream, greedy",
        "",
        *_one_stream(windows),
        "",
        f"### {run['streams']} streams",
        "",
        *_many(windows, run["streams"]),
        "",
        f"### Who comes beside {run['streams'] - 1} streams of one worker",
        "",
        *_newcomers(windows),
        "",
        "### Checks and targets",
        "",
        *_checks(records),
        *_targets(windows, run),
    ]
    return "\n".join(lines)


def _one_stream(windows: Sequence[Record]) -> Iterator[str]:
    yield "| who | tokens/s (least to most) | Brigantine / this | over HTTP / this | windows |"
    yield "| --- | --- | --- | --- | --- |"
    there = [name for name in _NAMES if rates(windows, name)]
    for name in sorted(there, key=lambda name: -statistics.median(rates(windows, name).values())):
        shown = (_shown(ratios(windows, ours, name)) for ours in (_INSIDE, _HTTP))
        yield f"| {_NAMES[name]} | {_spread(rates(windows, name))} | {' | '.join(shown)} | {_count(windows, name)} |"
    for name in (name for name in _NAMES if name not in there):
        yield f"| {_NAMES[name]} | no clean window | | | {_count(windows, name)} |"


def _many(windows: Sequence[Record], streams: int) -> Iterator[str]:
    yield (
        "| streams | tokens/s (least to most) | times one stream | first token p50 ms | p99 ms | server cores "
        "| client cores | windows |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, shown in (
        ("http", "1"),
        (f"http {streams}", str(streams)),
        ("http idle", "1, texts of 4 tokens"),
    ):
        clean = [window for window in _clean(windows) if window["series"] == name]
        if not clean:
            yield f"| {shown} | no clean window | | | | | | {_count(windows, name)} |"
            continue
        cores = (
            f"{statistics.median(w[key] for w in clean):.2f}" for key in ("server_cores", "client_cores")
        )
        yield (
            f"| {shown} | {_spread(rates(windows, name))} | {_shown(ratios(windows, name, 'http'))} | "
            f"{_first(clean, 50):.1f} | {_first(clean, 99):.1f} | {' | '.join(cores)} | {_count(windows, name)} |"
        )


def _newcomers(windows: Sequence[Record]) -> Iterator[str]:
    """What all episodes of the clean windows came to."""
    yield (
        "| newcomer's prompt | longest wait of the others, in steps beyond a usual one: p50 | worst | "
        "tokens that each is behind: p50 | worst | step ms | newcomer's first token ms | episodes |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for prompt, episodes in episodes_of(windows).items():
        shown: list[str] = []
        for key in ("longest", "lost"):
            values = [episode[key] for episode in episodes]
            shown += [f"{statistics.median(values):.2f}", f"{max(values):.2f}"]
        step = statistics.median(episode["step_ms"] for episode in episodes)
        first = f"{statistics.median(episode['first_ms'] for episode in episodes):.1f}" if prompt else ""
        who = f"{prompt} tokens" if prompt else "none comes"
        yield f"| {who} | {' | '.join(shown)} | {step:.2f} | {first} | {len(episodes)} |"


def _checks(records: Sequence[Record]) -> Iterator[str]:
    yield "| what | measured | target | kept |"
    yield "| --- | --- | --- | --- |"
    checks: list[Record] = [record for record in records if record["kind"] == "check"]
    for what in dict.fromkeys(check["what"] for check in checks):
        wrong, of = (sum(check[key] for check in checks if check["what"] == what) for key in ("wrong", "of"))
        yield f"| texts that are {what} | {of - wrong} of {of} | all | {_kept(not wrong)} |"


def _targets(windows: Sequence[Record], run: Record) -> Iterator[str]:
    """What the product promises, with the best setting of each peer, and with one like its own."""
    pairs = [(_INSIDE, "genai", 0.9), (_INSIDE, "genai 1", 0.9), (_INSIDE_2, "genai 2", 0.9)]
    for peer, least in (("genai", 0.9), ("transformers", 2.0)):
        of = {name: rates(windows, name) for name in _NAMES if name.startswith(peer)}
        best = max(of, key=lambda name: statistics.median(of[name].values() or [0]))
        pairs[:0] = [(ours, best, least) for ours in (_INSIDE, _HTTP)]
    for ours, theirs, least in pairs:
        measured = ratios(windows, ours, theirs)
        yield _target(f"{_NAMES[ours]} / {_NAMES[theirs]}", measured, least, float.__ge__)
    many = f"http {run['streams']}"
    yield _target(f"{run['streams']} streams / one", ratios(windows, many, "http"), 3.5, float.__ge__)
    idle = {w["round"]: w for w in _clean(windows) if w["series"] == "http idle"}
    both = [(w, idle[w["round"]]) for w in _clean(windows) if w["series"] == many and w["round"] in idle]
    for name, percent in (("p50", 50), ("p99", 99)):
        waits = [_first([loaded], 99) / _first([alone], percent) for loaded, alone in both]
        yield _target(f"first token p99 under load / {name} idle", waits, 10, float.__le__)
    long = [episode["longest"] for episode in episodes_of(windows).get(4 * run["prompt"], ())]
    yield _target("steps that a 4 times longer prompt stalls others", long, 2, float.__le__)


def _target(what: str, measured: Sequence[float], bound: float, kept: Callable[[float, float], bool]) -> str:
    sign = ">=" if kept is float.__ge__ else "<="
    held = bool(measured) and kept(float(statistics.median(measured)), float(bound))
    return f"| {what} | {_shown(measured) or 'no clean window'} | {sign} {bound:g} | {_kept(held)} |"


def rates(windows: Sequence[Record], series: str) -> dict[int, float]:
    """Tokens a second in each round in which the window was clean."""
    return {
        window["round"]: window["tokens_per_s"] for window in _clean(windows) if window["series"] == series
    }


def ratios(windows: Sequence[Record], one: str, other: str) -> list[float]:
    """Of the rates of both in the same round."""
    theirs = rates(windows, other)
    return [rate / theirs[number] for number, rate in rates(windows, one).items() if number in theirs]


def episodes_of(windows: Sequence[Record]) -> dict[int, list[Record]]:
    """All episodes of clean windows, by the length of the newcomer's prompt."""
    found: dict[int, list[Record]] = {}
    for window in _clean(windows):
        for episode in window.get("episodes", ()):
            found.setdefault(episode["prompt"], []).append(episode)
    return found


def _clean(windows: Sequence[Record]) -> list[Record]:
    return [window for window in windows if window["clean"]]


def _first(windows: Sequence[Record], percent: float) -> float:
    """The median over windows of a percentile of the times to the first token, in ms."""
    return statistics.median(float(np.percentile(window["first_ms"], percent)) for window in windows)


def _spread(measured: dict[int, float]) -> str:
    values = measured.values()
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def _shown(values: Sequence[float]) -> str:
    """The median, with the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


def _count(windows: Sequence[Record], series: str) -> str:
    """How many windows were clean; said aloud when they are few or some were dropped."""
    of = [window for window in windows if window["series"] == series]
    clean = len(_clean(of))
    dropped = f", {len(of) - clean} dropped" if clean < len(of) else ""
    return f"{'only ' if clean < FEWEST else ''}{clean}{dropped}"


def _kept(held: bool) -> str:
    return "yes" if held else "no"
