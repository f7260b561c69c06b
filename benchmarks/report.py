"""The tables of a benchmark, in markdown, from its raw records."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

MOST_FOREIGN = 0.06
"""A window in which others took more of the machine than this says nothing about a server."""
MOST_OFF = 0.1
"""How far the processor's speed in a window of the open loop may be from that in the window of which its load is a
share; else it was another share."""
FEWEST = 3
"""Clean windows below which a cell says that it has few."""

Record = dict[str, Any]


def report(records: Sequence[Record]) -> str:
    """All tables of one run."""
    run = next(record for record in records if record["kind"] == "run")
    windows = [record for record in records if record["kind"] == "window"]
    taken = sum(window["foreign"] > MOST_FOREIGN for window in windows)
    opened = [window for window in windows if window["loop"] == "open"]
    off = sum(window["foreign"] <= MOST_FOREIGN and not is_clean(window) for window in opened)
    lines = [
        f"`{run['model']}`, {run['rounds']} rounds, windows of {run['seconds']} s, {run['date']}: {run['cpu']}, "
        f"Python {run['python']}, {_named(run['versions'])}.",
        f"{taken} of {len(windows)} windows dropped: others took more than {MOST_FOREIGN:.0%} of the machine.",
        f"{off} of {len(opened)} windows of the open loop dropped: the processor was more than {MOST_OFF:.0%} faster "
        "or slower than when the capacity was measured.",
    ]
    lines += [f"{name} has {_named(other)}." for name, other in run["differences"].items()]
    for workers in sorted({window["workers"] for window in windows}):
        rows = [window for window in windows if window["workers"] == workers]
        many = f"{workers} worker{'s' if workers > 1 else ''}"
        for cell in run["connections"]:
            lines += ["", f"### {many}, closed loop, {cell} connection{'s' if cell > 1 else ''}", ""]
            lines += _closed(run, rows, records, cell)
        if any(window["loop"] == "open" for window in rows):
            lines += ["", f"### {many}, open loop", "", *_open(run, rows)]
        lines += ["", f"### {many}, start and memory", "", *_visits(run, records, workers)]
    return "\n".join(lines)


def _closed(run: Record, rows: list[Record], records: Sequence[Record], cell: int) -> Iterator[str]:
    yield from _head(
        "server", "requests/s (least to most)", "of the ceiling", "p50 ms", "p99 ms", "p99.9 ms",
        "CPU-ms/request", "errors", "windows",
    )  # fmt: skip
    best = {w["round"]: w["rps"] for w in _clean([w for w in rows if w["server"] == "ceiling"])}
    made: list[tuple[float, str]] = []
    for name in [*run["servers"], "ceiling"]:
        wanted = "ceiling" if name == "ceiling" else cell
        of = [w for w in rows if w["server"] == name and w["loop"] == "closed" and w["cell"] == wanted]
        clean = _clean(of)
        if not clean:
            made.append(
                (0.0, f"| {name} | {_why_none(of, records, name, rows)} | | | | | | | {_count(of)} |")
            )
            continue
        rps = [window["rps"] for window in clean]
        ratios = [w["rps"] / best[w["round"]] for w in clean if w["round"] in best]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        times = "| " * 3 if name == "ceiling" else " | ".join(_ms(clean, key) for key in _TIMES) + " | "
        made.append((
            statistics.median(rps),
            f"| {name} | {statistics.median(rps):.0f} ({min(rps):.0f} to {max(rps):.0f}) | {ratio} | {times}"
            f"{_median(clean, 'cpu_ms'):.2f} | {sum(w['errors'] for w in of)} | {_count(of)} |",
        ))  # fmt: skip
    yield from (line for _, line in sorted(made, key=lambda pair: -pair[0]))


def _open(run: Record, rows: list[Record]) -> Iterator[str]:
    yield from _head(
        "server", "of its capacity", "offered/s", "p50 ms", "p99 ms", "p99.9 ms",
        "answered within 50 ms", "errors", "windows",
    )  # fmt: skip
    for name in run["servers"]:
        for load in run["loads"]:
            of = [w for w in rows if w["server"] == name and w["loop"] == "open" and w["cell"] == load]
            clean = _clean(of)
            if not clean:
                yield f"| {name} | {load:.0%} | no clean window | | | | | | {_count(of)} |"
                continue
            times = " | ".join(_ms(clean, key) for key in _TIMES)
            yield (
                f"| {name} | {load:.0%} | {_median(clean, 'offered'):.0f} | {times} | {_median(clean, 'good'):.2%} | "
                f"{sum(w['errors'] for w in of)} of {sum(w['requests'] + w['errors'] for w in of)} | {_count(of)} |"
            )


def _visits(run: Record, records: Sequence[Record], workers: int) -> Iterator[str]:
    yield from _head("server", "ready after s", "resident MiB at the end", "failures")
    for name in run["servers"]:
        mine = [r for r in records if r.get("server") == name and r["workers"] == workers]
        visits = [record for record in mine if record["kind"] == "visit"]
        failures = [record["reason"] for record in mine if record["kind"] == "failure"]
        shown = f"{len(failures)}: {_brief(failures[0])}" if failures else "none"
        numbers = (
            f"{_median(visits, 'start_s'):.1f} | {_median(visits, 'resident_mib'):.0f}" if visits else "| "
        )
        yield f"| {name} | {numbers} | {shown} |"


def _head(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"


def is_clean(window: Record) -> bool:
    """Whether a window says something about its server."""
    off = window["turn_ns"] / window["best_turn_ns"] - 1 if window["loop"] == "open" else 0.0
    return window["foreign"] <= MOST_FOREIGN and abs(off) <= MOST_OFF


def _clean(windows: list[Record]) -> list[Record]:
    return [window for window in windows if is_clean(window)]


def _count(windows: list[Record]) -> str:
    """How many windows were clean; said aloud when they are few or some were dropped."""
    clean = len(_clean(windows))
    dropped = f", {len(windows) - clean} dropped" if clean < len(windows) else ""
    return f"{'only ' if clean < FEWEST else ''}{clean}{dropped}"


def _why_none(of: list[Record], records: Sequence[Record], name: str, rows: list[Record]) -> str:
    if of:
        return "no clean window"
    workers = rows[0]["workers"]
    reasons = [
        r["reason"]
        for r in records
        if r["kind"] == "failure" and r["server"] == name and r["workers"] == workers
    ]
    return f"failed: {_brief(reasons[0])}" if reasons else "not measured"


def _brief(reason: str) -> str:
    return " ".join(reason.replace("|", "/").split())[:200]


def _median(windows: list[Record], key: str) -> float:
    return statistics.median(window[key] for window in windows)


def _ms(windows: list[Record], key: str) -> str:
    return f"{_median(windows, key):.1f}"


_TIMES = ("p50_ms", "p99_ms", "p999_ms")


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
