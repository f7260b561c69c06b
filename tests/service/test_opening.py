"""Opening on a GPU, as far as it shows without one: which graph is opened in which way, and what then runs."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine.buckets import Buckets
from brigantine.decoder import CHUNK, Decoder
from brigantine.errors import ModelInvalid
from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from brigantine.store import Store
from brigantine.tensors import DeviceTensors, HostTensors

from tests.parrot import parrot_model
from tests.scribble import scribble_model
from tests.service.pretended import pretend
from tests.tiny import tiny_batch, tiny_model

MNIST = Store().find()["mnist"].path
ON_CPU = SessionOptions(device="cpu")


def batch(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "z": rng.standard_normal((rows, 100), dtype=np.float32),
        "label": rng.integers(10, size=rows),
    }


@pytest.mark.parametrize(
    ("refuses", "asked", "ids"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_a_generator_is_recorded_where_that_goes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refuses: bool,
    asked: bool,
    ids: bool,
):
    model = Model.open(tiny_model(tmp_path, max_batch=6))
    expected = {rows: Session.open(model, ON_CPU).run(tiny_batch(rows))["image"] for rows in (1, 3, 9)}
    pretend(monkeypatch, refuses)

    session = Session.open(model, SessionOptions(cuda_graphs=asked), require_gpu=True)

    assert (session.device, session.fell_back, session.repeats) == ("cuda", False, True)
    for rows, images in expected.items():
        assert np.array_equal(session.run(tiny_batch(rows))["image"], images)
    assert set(session._engine.graph_ids) == ({"1", "2", "4", "6"} if ids else {"-1"})
    assert session._engine.recorded == ids
    told = f"{model.graph}: cannot be run as CUDA graphs on this GPU, and is slower by that: This session cannot use"
    assert [record.getMessage().startswith(told) for record in caplog.records] == [True] * refuses


@pytest.mark.parametrize("plain", [True, False])
def test_what_does_not_repeat_is_opened_with_plain_convolutions(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, plain: bool
):
    expected = Session.open(Model.open(MNIST), SessionOptions(plain_convolutions=False)).run(batch(5))[
        "image"
    ]
    pretend(monkeypatch)
    keep = Buckets._keep_agreeing
    opened: list[Any] = []

    def as_it_is_does_not(self: Buckets, model: Model) -> None:
        keep(self, model)
        opened.append(self)
        self.reproducible = len(opened) > 1

    monkeypatch.setattr(Buckets, "_keep_agreeing", as_it_is_does_not)
    session = Session.open(Model.open(MNIST), SessionOptions(plain_convolutions=plain))

    assert len(opened) == 1 + plain
    assert session.repeats == plain
    assert np.abs(session.run(batch(5))["image"].astype(int) - expected).max() <= 1
    assert not caplog.records


def test_what_never_repeats_is_said_to(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    pretend(monkeypatch)
    monkeypatch.setattr(Buckets, "_repeats", lambda *_: False)
    with caplog.at_level(logging.WARNING):
        session = Session.open(Model.open(MNIST))
    assert not session.repeats
    assert (
        "the same seed may give other bits each time on this GPU: its kernels add up in any order"
        in caplog.text
    )


@pytest.mark.parametrize("refuses", [False, True])
def test_a_language_model_has_its_cache_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool
):
    model = Model.open(scribble_model(tmp_path))
    host = Decoder(Session.open(model, ON_CPU), 160)
    pretend(monkeypatch, refuses)
    session = Session.open(model)
    device = Decoder(session, 160)

    assert session.dtypes["past_key_values.0.key"] == "float16"
    assert isinstance(device._slots.tensors, DeviceTensors)
    prompts = [[(7 * at + row) % 288 for at in range(length)] for row, length in enumerate((1, 33, 90))]
    for decoder in (host, device):
        for prompt in prompts:
            taken = decoder.place(prompt)
            assert taken is not None
            for at in range(taken[1], len(prompt), CHUNK):
                decoder.read(taken[0], prompt, at)
    made = [
        decoder.decode([place], [11], [len(prompts[1])])
        for decoder in (host, device)
        if (found := decoder.place(prompts[1])) is not None
        for place in [found[0]]
        if decoder.read(place, prompts[1], found[1]) is not None
    ]
    np.testing.assert_allclose(made[1], made[0], atol=0.02 * np.abs(made[0]).max())
    assert ({"9"} <= set(session._engine.graph_ids)) == (not refuses)


def test_half_precision_that_is_refused_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    pretend(monkeypatch)
    monkeypatch.setattr("brigantine.opening.halved", lambda _: b"no graph")
    session = Session.open(Model.open(scribble_model(tmp_path)))
    assert session.dtypes["past_key_values.0.key"] == "float32"
    assert [record.getMessage().partition("cannot be run ")[2][:43] for record in caplog.records] == [
        "as CUDA graphs in half precision on this GP",
        "in half precision on this GPU, and is slowe",
    ]


def test_one_that_does_not_append_in_place_has_it_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = Model.open(parrot_model(tmp_path))
    pretend(monkeypatch)
    decoder = Decoder(Session.open(model), 160)
    assert isinstance(decoder._slots.tensors, HostTensors)
    assert decoder.vocabulary == decoder.read_at_once([1, 2, 3]).shape[1]


def test_a_graph_that_is_not_what_the_manifest_says_is_refused_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tiny_model(tmp_path, inputs=[{"name": "noise", "dtype": "float32", "shape": ["batch", 4]}])
    pretend(monkeypatch)
    with pytest.raises(ModelInvalid, match=r"states the inputs {'noise': 'float32'}, the graph has {'z'"):
        Session.open(Model.open(path))
