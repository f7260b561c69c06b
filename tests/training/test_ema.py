"""The averaged generator."""

import pytest
import torch
from brigantine_training.ema import Ema
from brigantine_training.networks import build_generator

from tests.training.digits import tiny_config


def _generator(value: float):
    generator = build_generator(tiny_config(), 10, (1, 8, 8))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(value)
    return generator


def test_the_average_warms_up():
    ema = Ema(_generator(0.0), decay=0.5)
    target = _generator(1.0)
    expected = 0.0
    for update in range(20):
        ema.update(target)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay)
        assert ema.generator.get_parameter("project.weight")[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_the_average_is_apart_and_does_not_learn():
    generator = _generator(0.0)
    ema = Ema(generator, decay=0.9)
    _ = generator.train()(torch.randn(4, 4), torch.arange(4))
    assert not ema.generator.training
    assert not any(parameter.requires_grad for parameter in ema.generator.parameters())
    assert ema.generator.state_dict()["layers.0.num_batches_tracked"] == 0
    ema.update(generator)
    assert ema.generator.state_dict()["layers.0.num_batches_tracked"] == 1


def test_the_average_goes_on_where_another_stood():
    first, second = Ema(_generator(0.0), decay=0.9), Ema(_generator(5.0), decay=0.9)
    first.update(_generator(1.0))
    second.load_state_dict(first.state_dict())
    for ema in (first, second):
        ema.update(_generator(2.0))
    for name, value in first.generator.state_dict().items():
        assert torch.equal(value, second.generator.state_dict()[name])
