"""References: what anyone can make of the training text in a moment, as a measure of bits per character."""

from __future__ import annotations

import lzma
import math
from collections import Counter

__all__ = ["KneserNey", "reference_bits"]

_ORDER = 7
_DISCOUNT = 0.9
"""Order and discount that suit tinyshakespeare best: a weaker rival would flatter the model."""


def reference_bits(train: str, test: str) -> dict[str, float]:
    """Bits per character of `test` under models of `train`, by their names."""
    models = {
        "characters by their frequency": KneserNey(train, 1),
        f"{_ORDER}-grams of characters, Kneser-Ney": KneserNey(train, _ORDER),
    }
    figures = {name: model.bits(test) / len(test) for name, model in models.items()}
    figures["xz, after the training text"] = 8 * (_packed(train + test) - _packed(train)) / len(test)
    return figures


def _packed(text: str) -> int:
    return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999) over characters.

    Args:
        text: what is counted.
        order: characters of the longest sequence; each is predicted from `order - 1` before it.
    """

    def __init__(self, text: str, order: int) -> None:
        self._order = order
        grams = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, order + 1)]
        # Shorter sequences count by how many characters they follow, not by how often.
        self._counts = [Counter(gram[1:] for gram in longer) for longer in grams[1:]] + [grams[-1]]
        self._totals: list[Counter[str]] = []
        self._kinds: list[Counter[str]] = []
        for counts in self._counts:
            totals, kinds = Counter[str](), Counter[str]()
            for gram, count in counts.items():
                totals[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            self._totals.append(totals)
            self._kinds.append(kinds)
        self._floor = 1 / (len(set(text)) + 1)  # one more, for all that the text does not hold

    def bits(self, text: str) -> float:
        """Minus the binary logarithm of the probability of `text`, whose first characters have less before them."""
        width = self._order - 1
        return -sum(
            math.log2(self.probability(text[max(0, i - width) : i], text[i])) for i in range(len(text))
        )

    def probability(self, before: str, character: str) -> float:
        """Of `character` after `before`, of which the last `order - 1` characters count."""
        likely = self._floor
        for length in range(min(len(before), self._order - 1) + 1):
            context = before[len(before) - length :]
            total = self._totals[length][context]
            if not total:
                break
            count = self._counts[length][context + character]
            kept = _DISCOUNT * self._kinds[length][context] / total
            likely = max(count - _DISCOUNT, 0) / total + kept * likely
        return likely
