"""The tokenizer: the same each time, and no text that it cannot write."""

from __future__ import annotations

import pytest
from brigantine_training.language.tokenizer import END_OF_TEXT, end_of_text, merges_of, train_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training.language.plays import written

TOKENIZER = train_tokenizer(written(200, seed=1), 320)


@given(st.text())
def test_any_text_comes_back(text: str):
    encoding = TOKENIZER.encode(text)
    assert TOKENIZER.decode(encoding.ids, skip_special_tokens=False) == text
    assert all(0 <= token < 320 for token in encoding.ids)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "  two  spaces ", "naïve 語 🏴‍☠️", "\x00\x7f", f"a{END_OF_TEXT}b"]
)
def test_what_the_training_text_never_held_comes_back(text: str):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_it_is_as_large_as_asked_and_begins_with_the_end_of_a_text():
    assert TOKENIZER.get_vocab_size() == 320
    assert end_of_text(TOKENIZER) == 0
    assert TOKENIZER.encode(END_OF_TEXT).ids == [0]
    assert len(merges_of(TOKENIZER)) == 320 - 257


def test_it_is_the_same_each_time_and_read_back():
    again = train_tokenizer(written(200, seed=1), 320)
    assert again.to_str() == TOKENIZER.to_str()
    assert Tokenizer.from_str(TOKENIZER.to_str()).to_str() == TOKENIZER.to_str()


def test_what_repeats_most_is_merged_first():
    assert merges_of(TOKENIZER)[0] == ("t", "h")
    assert ("Ġ", "th") in merges_of(TOKENIZER)[:10]


def test_a_text_without_repetition_gives_fewer_tokens():
    assert train_tokenizer("ab", 320).get_vocab_size() == 258
