"""Graphs that attend in blocks and graphs that do not, opened at the same time."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from brigantine import blocks
from brigantine.blocks import attending, environment

SWITCH = "ORT_GQA_DISABLE_FLASH_ATTENTION"


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody has said anything."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(blocks, "_given", None)
    yield
    assert blocks._opening == {True: 0, False: 0}


def test_the_environment_says_so_while_a_graph_is_opened():
    with attending(in_blocks=True):
        assert SWITCH not in os.environ
    with attending(in_blocks=False):
        assert os.environ[SWITCH] == "1"
        assert SWITCH not in environment()
    assert SWITCH not in os.environ


def test_a_graph_that_cannot_be_opened_leaves_nothing_behind():
    with pytest.raises(ValueError, match="no graph"), attending(in_blocks=False):
        raise ValueError("no graph")
    assert SWITCH not in os.environ


@pytest.mark.parametrize("given", ["0", "1"])
def test_who_has_set_the_variable_is_obeyed(given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWITCH, given)
    monkeypatch.setattr(blocks, "_given", given)
    for in_blocks in (True, False):
        with attending(in_blocks):
            assert os.environ[SWITCH] == environment()[SWITCH] == given
    assert os.environ[SWITCH] == given


def test_a_process_knows_what_it_was_given():
    code = "from brigantine import blocks; print(blocks._given)"
    for given, expected in (({}, "None"), ({SWITCH: "1"}, "1")):
        made = subprocess.run(
            [sys.executable, "-c", code],
            env=environment() | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert made.stdout.strip() == expected


def opened(in_blocks: bool, seen: list[bool]) -> threading.Thread:
    def open_it() -> None:
        with attending(in_blocks):
            seen.append(SWITCH in os.environ)

    thread = threading.Thread(target=open_it)
    thread.start()
    return thread


def test_two_of_a_kind_are_opened_beside_each_other():
    seen: list[bool] = []
    with attending(in_blocks=False):
        opened(False, seen).join(5)
        assert seen == [True]
        assert os.environ[SWITCH] == "1"


@pytest.mark.parametrize("first", [True, False])
def test_two_of_two_kinds_are_not(first: bool):
    seen: list[bool] = []
    with attending(first):
        other = opened(not first, seen)
        other.join(0.1)
        assert not seen
    other.join(5)
    assert seen == [first]


def test_one_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "_PATIENCE_S", 0.05)
    seen: list[bool] = []
    with attending(in_blocks=True):
        begin = time.monotonic()
        opened(False, seen).join(5)
        assert seen == [True]
        assert time.monotonic() - begin < 3
