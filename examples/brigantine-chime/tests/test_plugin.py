"""The plugin keeps the contract, and what it makes has the pitch that was asked for."""

import io
import wave
from pathlib import Path

import numpy as np
from brigantine.testing import conformance
from brigantine.testing.pytest_plugin import Generate
from brigantine_chime import ChimePlugin

MODEL = Path(__file__).parents[1] / "src" / "brigantine_chime" / "models" / "chime"

test_chime = conformance(ChimePlugin, MODEL)


def test_the_loudest_partial_has_the_pitch(generate: Generate) -> None:
    [media] = generate(ChimePlugin, MODEL, pitch=880, seed=7)  # through the real engine
    with wave.open(io.BytesIO(media.body)) as file:
        rate, length = file.getframerate(), file.getnframes()
        samples = np.frombuffer(file.readframes(length), "<i2").reshape(length, -1)[:, 0]  # [T]

    step = rate / length  # Hz from one bin of the spectrum to the next
    loudest = step * int(np.abs(np.fft.rfft(samples)).argmax())
    assert abs(loudest - 880) <= max(step, 1), (
        f"expected the loudest partial at 880 Hz, got {loudest:.1f} Hz in {length} samples at {rate} Hz; does RATE in "
        "plugin.py say how many samples a second the graph makes?"
    )
