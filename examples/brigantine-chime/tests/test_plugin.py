"""The plugin keeps the contract, and what it makes has the pitch that was asked for."""

from pathlib import Path

import numpy as np
from brigantine import Model, Session
from brigantine.testing import conformance
from brigantine_chime import ChimeParams, ChimePlugin

MODEL = Path(__file__).parents[1] / "src" / "brigantine_chime" / "models" / "chime"

test_chime = conformance(ChimePlugin, MODEL)


def test_the_loudest_partial_has_the_pitch() -> None:
    model = Model.open(MODEL)
    plugin = ChimePlugin(model, Session.open(model))
    row = plugin.prepare(ChimeParams(pitch=880.0), np.random.default_rng(7))
    batch = {name: values[None] for name, values in row.items()}  # each [1, ...]
    [audio] = plugin.generate(batch)["audio"]  # float32 [16000]

    loudest = np.abs(np.fft.rfft(audio)).argmax()  # in a second, bin k is k Hz
    assert abs(int(loudest) - 880) <= 1
