"""Tokens drawn by adding up weights one by one and by blocks, interleaved: `python benchmarks/sampling.py`"""

from __future__ import annotations

import statistics
import time

import numpy as np
from brigantine_text.sampling import _inverted, _inverted_by_blocks

ROUNDS = 9
SIZES = (1024, 4096, 32_000, 128_256)
ROWS = (1, 16)


def main() -> None:
    print("| tokens | rows | one by one, us | by blocks | share |")
    print("| --- | --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    for size in SIZES:
        for rows in ROWS:
            weights = np.exp(rng.standard_normal((rows, size), dtype=np.float32) * 3)
            uniforms = rng.random(rows).tolist()
            assert _inverted(weights, uniforms) == _inverted_by_blocks(weights, uniforms)
            times: list[list[float]] = []
            for _ in range(ROUNDS):
                times.append([])
                for invert in (_inverted, _inverted_by_blocks):
                    begin = time.perf_counter()
                    for _ in range(5):
                        invert(weights, uniforms)
                    times[-1].append(1e6 * (time.perf_counter() - begin) / 5)
            before, after = (statistics.median(column) for column in zip(*times, strict=True))
            share = statistics.median(two[1] / two[0] for two in times)
            print(f"| {size:,} | {rows} | {before:,.0f} | {after:,.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
