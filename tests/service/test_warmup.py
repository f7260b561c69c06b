"""The warm-up: what a model's first rows show of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from brigantine.warmup import warm_up
from brigantine_image import ImagePlugin

from tests.tiny import tiny_model


@pytest.fixture
def plugin(tmp_path: Path) -> ImagePlugin:
    model = Model.open(tiny_model(tmp_path))
    return ImagePlugin(model, Session.open(model, SessionOptions(device="cpu")))


def test_what_repeats_is_tried_in_batches(plugin: ImagePlugin):
    facts = warm_up(plugin, 8)
    assert (facts.repeats, facts.invariant, facts.tried_batch) == (True, True, 8)


def test_what_comes_out_otherwise_each_time_is_seen_and_goes_into_batches(
    plugin: ImagePlugin, monkeypatch: pytest.MonkeyPatch
):
    run, rng = plugin.session.run, np.random.default_rng(0)

    def shaken(arrays: Any) -> dict[str, Any]:
        made = run(arrays)
        return {
            name: values ^ rng.integers(2, size=values.shape, dtype=np.uint8) for name, values in made.items()
        }

    monkeypatch.setattr(plugin.session, "run", shaken)
    facts = warm_up(plugin, 8)
    assert (facts.repeats, facts.invariant, facts.tried_batch) == (False, True, 8)
