"""Held: it is used as what it stands for, and whoever drops it, that is not let go of beside a recording."""

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brigantine.decoder import CHUNK, Decoder
from brigantine.held import Held
from brigantine.model import Model
from brigantine.session import Session
from brigantine.tensors import HostTensors
from brigantine.turns import GPU

from tests.parrot import parrot_model
from tests.scribble import scribble_model
from tests.service.pretended import Alive, Value, pretend
from tests.tiny import tiny_batch, tiny_model


def test_it_is_used_as_what_it_stands_for():
    one = Held(SimpleNamespace(number=7, add=lambda number: number + 1))
    assert (one.number, one.add(2)) == (7, 3)
    with pytest.raises(AttributeError, match="other"):
        _ = one.other


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """What lies on the GPU that is pretended."""
    gc.collect()
    return pretend(monkeypatch)


def test_what_the_garbage_collector_finds_in_a_recording_goes_after_it(alive: Alive):
    value = Value.ortvalue_from_shape_and_type([3], np.float32, "cuda", 0)
    cycle: list[Any] = [Held(value)]
    cycle.append(cycle)
    with GPU.record():
        del cycle, value
        gc.collect()
        assert alive.kinds == ["Value"]
    assert (alive.kinds, alive.astray) == ([], [])


def test_a_generator_that_is_dropped_beside_a_recording_goes_after_it(tmp_path: Path, alive: Alive):
    model = Model.open(tiny_model(tmp_path, max_batch=6))
    session = Session.open(model)
    session.run(tiny_batch(9))
    assert {"Engine", "Binding", "Value"} <= set(alive.kinds)
    with GPU.record():
        del session
        gc.collect()
        assert alive.kinds
    assert (alive.kinds, alive.astray) == ([], [])


def test_buckets_that_are_not_kept_go_in_their_turn(
    tmp_path: Path, alive: Alive, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("brigantine.buckets._FILLING_FLOPS", 1e15)
    session = Session.open(Model.open(tiny_model(tmp_path, swayed=True, max_batch=6)))
    assert session._buckets is not None
    assert session._buckets.sizes == [6]
    assert alive.kinds.count("Binding") == 1
    assert alive.astray == []


def read(decoder: Decoder, prompt: list[int]) -> None:
    taken = decoder.place(prompt, reuse=False)
    assert taken is not None
    decoder.read(taken[0], prompt, 0)


@pytest.mark.parametrize("graph", [scribble_model, parrot_model])
def test_a_language_model_lets_go_of_nothing_astray(tmp_path: Path, alive: Alive, graph: Any):
    """Of batches that are bound anew, of a cache that was tried, and of it all."""
    decoder = Decoder(Session.open(Model.open(graph(tmp_path))), 160)
    for length in range(1, CHUNK):
        read(decoder, list(range(length)))
    decoder._slots.tensors.copy(0, 1, 5)
    assert alive.kinds
    with GPU.record():
        del decoder
        gc.collect()
        assert alive.kinds
    gc.collect()
    assert (alive.kinds, alive.astray) == ([], [])


@pytest.mark.parametrize("is_text", [False, True])
def test_what_fails_while_it_is_recorded_lets_go_of_nothing_astray(
    tmp_path: Path, alive: Alive, monkeypatch: pytest.MonkeyPatch, is_text: bool
):
    monkeypatch.setattr("tests.service.pretended.Engine.fails_in", {"1", "9"})
    model = Model.open(scribble_model(tmp_path) if is_text else tiny_model(tmp_path, max_batch=8))
    session = Session.open(model)
    assert session.device == "cuda"
    if is_text:
        assert isinstance(Decoder(session, 160)._slots.tensors, HostTensors)
    del session
    gc.collect()
    assert (alive.kinds, alive.astray) == ([], [])
