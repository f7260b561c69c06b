"""Binding: what is bound is read and written in each run, whether it crosses a bus or lies where the graph runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine.binding import bound_on_device, bound_on_host
from brigantine.model import Model
from brigantine.session import Session, SessionOptions, runtime
from brigantine.tensors import View

from tests.tiny import SIDE, tiny_batch, tiny_model


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.open(Model.open(tiny_model(tmp_path)), SessionOptions(device="cpu"))


@pytest.mark.parametrize("way", ["host", "device", "crossing"])
def test_each_run_reads_what_is_there_then(session: Session, way: str):
    arrays = {name: np.zeros_like(values) for name, values in tiny_batch(3).items()}
    image = np.empty((3, SIDE, SIDE, 1), np.uint8)
    # Under another name than the device's, so that it has to cross.
    inputs = {name: View.of(array)._replace(device=_named(way)) for name, array in arrays.items()}
    outputs = {"image": View.of(image)._replace(device=_named(way))}
    ort, engine = runtime(), session._engine
    run = (
        bound_on_host(ort, engine, inputs, outputs)
        if way == "host"
        else bound_on_device(ort, engine, "cpu", inputs, outputs)
    )
    for seed in (3, 33):
        batch: dict[str, Any] = {name: values[:3] for name, values in tiny_batch(seed).items()}
        for name, values in batch.items():
            arrays[name][...] = values
        image[...] = 0
        run()
        assert np.array_equal(image, session.run(batch)["image"])


def _named(way: str) -> str:
    return "host" if way == "crossing" else "cpu"
