"""What the network is shown: everything once an epoch, in an order that only the seed decides."""

from __future__ import annotations

import pytest
import torch
from brigantine_training.errors import DataError
from brigantine_training.language.pieces import Pieces
from brigantine_training.language.tokenizer import train_tokenizer
from brigantine_training.language.windows import Windows

from tests.training.language.plays import written

TEXT = written(300, seed=1)
TOKENIZER = train_tokenizer(TEXT, 300)
IDS = TOKENIZER.encode(TEXT).ids
LINE = TOKENIZER.encode("\n").ids[0]
END = 0


def _windows(seed: int = 0, dropout: float = 0.0, batch: int = 4, tokens: int = 16) -> Windows:
    pieces = Pieces(TOKENIZER, TEXT, dropout, seed)
    return Windows(pieces, tokens, batch, end_of_text=END, paragraph=LINE, seed=seed)


def _places(window: list[int]) -> list[int]:
    return [i for i in range(len(IDS) - len(window) + 1) if IDS[i : i + len(window)] == window]


def test_an_epoch_shows_the_text_once_in_windows_that_do_not_overlap():
    windows = _windows()
    batches = (len(IDS) - 1) // 16 // 4 - 1
    rows = [row for _ in range(batches) for row in windows.next(0.0).tolist()]
    assert all(len(row) == 17 for row in rows)
    plain = [row for row in rows if row[0] != END]
    starts = [_places(row) for row in plain]
    assert all(starts)
    assert len({place[0] % 16 for place in starts if len(place) == 1}) == 1, "cut at the same distance"
    assert len({tuple(row) for row in plain}) == len(plain)


def test_some_windows_open_a_paragraph_as_a_text_begins():
    windows = _windows()
    rows = [row for _ in range(200) for row in windows.next(0.0).tolist()]
    opened = [row for row in rows if row[0] == END]
    assert 0.03 < len(opened) / len(rows) < 0.12
    for row in opened:
        assert any(IDS[place - 2 : place] == [LINE, LINE] for place in _places(row[1:]))


def test_epochs_differ_and_seeds_decide():
    one, other, third = _windows(0), _windows(0), _windows(1)
    epoch = (len(IDS) - 1) // 16 // 4
    first = [one.next(0.0) for _ in range(epoch)]
    assert torch.equal(first[0], other.next(0.0))
    assert not torch.equal(first[0], third.next(0.0))
    assert not torch.equal(first[0], one.next(0.0))


@pytest.mark.parametrize("taken", [0, 3, 150])
def test_windows_go_on_where_others_stood(taken: int):
    first = _windows(dropout=0.3)
    for _ in range(taken):
        first.next(0.8)
    second = _windows(dropout=0.3)
    second.load_state_dict(first.state_dict())
    for _ in range(150):
        assert torch.equal(first.next(0.4), second.next(0.4))


def test_a_batch_of_more_than_the_text_is_refused():
    with pytest.raises(DataError, match=r"batch_windows=4000 of 16 tokens are more than the text"):
        _windows(batch=4000).next(0.0)
    with pytest.raises(DataError, match="batch_windows=1 of 90000 tokens"):
        _windows(batch=1, tokens=90000).next(0.0)
