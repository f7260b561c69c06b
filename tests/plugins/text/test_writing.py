"""A text on its way: cut before a stop, wherever the tokens meet, and never inside a character."""

import math
from itertools import pairwise

import numpy as np
from brigantine_text.sampling import Sampling
from brigantine_text.writing import Task, Writing
from hypothesis import example, given
from hypothesis import strategies as st

SAMPLING = Sampling(1.0, 1.0, 0, 0.0, 1.0, 0.0, 0.0)
NO_LOGITS = np.zeros(4, np.float32)


def task(
    stops: tuple[bytes, ...] = (), echo: bool = False, logprobs: int = -1, prompt: tuple[int, ...] = (0,)
) -> Task:
    return Task(prompt, np.zeros(99), stops, SAMPLING, logprobs, echo)


def written(pieces: list[bytes], stops: tuple[bytes, ...] = ()) -> tuple[bytes, list[bytes], bool]:
    """The whole text, what could be shown of it after each piece, and whether a stop has ended it."""
    writing, stopped = Writing.begin(task(stops), b""), False
    shown: list[bytes] = []
    for piece in pieces:
        writing, stopped = writing.has_made([1], [piece], NO_LOGITS)
        shown.append(writing.text)
        if stopped:
            break
    return writing.whole(), shown, stopped


def in_pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    return [raw[start:end] for start, end in pairwise(ends)]


texts = st.text(alphabet="ab£€😀", max_size=20)


@given(
    texts, st.lists(st.text(alphabet="ab€", min_size=1, max_size=3), max_size=3), st.lists(st.integers(0, 99))
)
@example("aab", ["aab", "ab"], [1, 2])
@example("x😀", ["\N{GRINNING FACE}!"], [2, 3])
def test_the_text_ends_before_the_first_stop_however_it_is_cut(text: str, stops: list[str], cuts: list[int]):
    whole, shown, stopped = written(in_pieces(text.encode(), cuts), tuple(stop.encode() for stop in stops))

    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert stopped == bool(found)
    if stopped:  # another stop, which ends earlier in the text, may have been complete first
        assert whole.decode() in {text[:at] for at in found}
    else:
        assert whole.decode() == text
    for part in shown:
        assert whole.startswith(part)
        part.decode()  # whole characters


@given(st.binary(max_size=12), st.lists(st.integers(0, 99)))
def test_what_is_no_utf8_is_replaced_and_nothing_is_shown_that_is_taken_back(raw: bytes, cuts: list[int]):
    whole, shown, _ = written(in_pieces(raw, cuts))
    assert all(whole.startswith(part) for part in shown)
    for part in (whole, *shown):
        part.decode()
    assert [letter for letter in whole.decode() if letter.isascii()] == [
        chr(byte) for byte in raw if byte < 128
    ]


@given(st.binary(max_size=12), st.lists(st.integers(0, 99)), st.integers(1, 4))
def test_several_pieces_at_once_come_to_the_same(raw: bytes, cuts: list[int], size: int):
    pieces = in_pieces(raw, cuts)
    writing = Writing.begin(task(), b"")
    for start in range(0, len(pieces), size):
        some = pieces[start : start + size]
        writing, stopped = writing.has_made([1] * len(some), some, NO_LOGITS)
        assert not stopped
    assert (writing.whole(), len(writing.tokens)) == (written(pieces)[0], len(pieces))


def test_a_character_that_has_only_begun_is_not_shown():
    euro = "€".encode()
    assert written([b"a", euro[:1], euro[1:2], euro[2:]])[1] == [b"a", b"a", b"a", b"a" + euro]
    assert written([b"a", euro[:2]])[0] == b"a"


def test_the_beginning_of_a_stop_is_held_back_until_it_is_none():
    assert written([b"a", b"\n", b"\n"], (b"\n\n",))[:2] == (b"a", [b"a", b"a", b"a"])
    assert written([b"a", b"\n", b"b"], (b"\n\n",))[:2] == (b"a\nb", [b"a", b"a", b"a\nb"])
    assert written([b"a", b"\n"], (b"\n\n",))[0] == b"a\n"


def test_an_echo_begins_with_the_prompt_which_no_stop_ends():
    begun = Writing.begin(task((b"x",), echo=True), b"axe ")
    after, stopped = begun.has_made([1], [b"b"], NO_LOGITS)
    assert (after.whole(), stopped) == (b"axe b", False)


def test_a_prompt_is_scored_by_what_comes_before_each_token():
    writing = Writing.begin(task(echo=True, logprobs=1, prompt=(2, 0, 1)), b"")
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.25] * 4], np.float32))
    half = writing.has_read(logits[:2])
    read = half.has_read(logits[2:])
    assert read.is_read and not half.is_read
    first, second, third = read.scored
    assert math.isnan(first.logprob)
    assert math.isclose(math.exp(second.logprob), 0.7, rel_tol=1e-6)
    assert [token for token, _ in second.top] == [0]
    assert math.isclose(math.exp(third.logprob), 0.2, rel_tol=1e-6)
    assert [token for token, _ in third.top] == [2]
