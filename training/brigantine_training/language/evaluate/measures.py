"""The figures that a language model is judged by: what each means, and which way is better."""

from __future__ import annotations

from ...evaluate import Measure

__all__ = ["LANGUAGE_MEASURES"]

LANGUAGE_MEASURES: dict[str, Measure] = {
    "bits_per_character": Measure(
        "bits per character",
        "lower",
        "what the model needs to tell one character of the held-out text, all of which is read once, in windows of "
        "its context that do not overlap",
        "",
        highest=float("inf"),
    ),
    "known_words": Measure(
        "known words", "like real text", "share of the words written that the training text holds", ""
    ),
    "novel_4grams": Measure(
        "novel 4-grams",
        "like real text",
        "share of four successive words that the training text nowhere holds; 0 means it only repeats",
        "after McCoy 2021, arXiv:2111.09509",
    ),
    "longest_copy": Measure(
        "longest copy",
        "like real text",
        "characters of the longest span of a draw that stands in the training text as it is",
        "",
        highest=float("inf"),
    ),
    "distinct_1": Measure(
        "distinct-1", "like real text", "distinct words as a share of all", "Li 2016, arXiv:1510.03055"
    ),
    "distinct_2": Measure(
        "distinct-2",
        "like real text",
        "distinct pairs of words as a share of all",
        "Li 2016, arXiv:1510.03055",
    ),
}
"""By the name that the score has in the manifest, in the order of a report."""
