"""What a text shares with another: against the slow and obvious."""

from __future__ import annotations

import pytest
from brigantine_training.language.evaluate.memory import (
    distinct_share,
    grams_of,
    longest_copy,
    novel_share,
    words_of,
)
from hypothesis import given
from hypothesis import strategies as st

short = st.text(alphabet="ab c\n語", max_size=40)


def _slow_copy(piece: str, text: str) -> int:
    spans = [piece[i:j] for i in range(len(piece)) for j in range(i, len(piece) + 1)]
    return max((len(span) for span in spans if span in text), default=0)


@given(st.lists(short, max_size=4), short)
def test_the_longest_copy_is_the_longest_common_span(pieces: list[str], text: str):
    assert longest_copy(pieces, text) == max((_slow_copy(piece, text) for piece in pieces), default=0)


def test_a_copy_does_not_go_over_the_end_of_a_piece():
    assert longest_copy(["xxabc", "defyy"], "..abcdef..") == 3


def test_words_have_no_marks_and_no_capitals():
    assert words_of("KING:\nO, 'tis thee--I'll  go!\n") == ["king", "o", "tis", "thee", "i'll", "go"]


def test_novel_is_what_is_not_known():
    known = set(grams_of(["a", "b", "c", "d", "e"], 4))
    assert known == {("a", "b", "c", "d"), ("b", "c", "d", "e")}
    assert novel_share(["A b, c d e f"], known, 4) == pytest.approx(1 / 3)
    assert novel_share(["a b", "c d e"], known, 4) == 0, "no sequence goes over the end of a piece"


def test_distinct_is_a_share_of_all():
    assert distinct_share(["a b a b"], 1) == 2 / 4
    assert distinct_share(["a b a b"], 2) == 2 / 3
    assert distinct_share([], 2) == 0
