"""The text: read as it is, cut in two, with its checksum."""

from __future__ import annotations

from pathlib import Path

import pytest
from brigantine_training.errors import DataError
from brigantine_training.language.corpus import open_corpus

from tests.mnist import DATA_DIR, NO_PLAYS

FILE = "tinyshakespeare.txt"


def test_the_last_tenth_is_held_out(tmp_path: Path):
    (tmp_path / FILE).write_text("abcdefghij" * 10)
    corpus = open_corpus("tinyshakespeare", tmp_path)
    assert (len(corpus.train_text), len(corpus.test_text)) == (90, 10)
    assert corpus.train_text + corpus.test_text == "abcdefghij" * 10


@pytest.mark.skipif(not (DATA_DIR / FILE).is_file(), reason=NO_PLAYS)
def test_the_real_text():
    corpus = open_corpus("tinyshakespeare", DATA_DIR)
    assert (len(corpus.train_text), len(corpus.test_text)) == (1_003_854, 111_540)
    assert corpus.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert corpus.test_text.startswith("?\n\nGREMIO:")


def test_a_missing_file_says_where_and_how_to_get_it(tmp_path: Path):
    with pytest.raises(
        DataError, match=rf"expected {tmp_path / FILE}, found none.*--data-dir, or fetch it: curl"
    ):
        open_corpus("tinyshakespeare", tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"is no UTF-8 text"):
        open_corpus("tinyshakespeare", tmp_path)


def test_an_unknown_text_names_the_known_ones(tmp_path: Path):
    with pytest.raises(DataError, match="Known: tinyshakespeare"):
        open_corpus("bible", tmp_path)
