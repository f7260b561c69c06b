"""Nats of tokens: every one is counted once, from what stands before it in its window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from brigantine_training.language.evaluate.likelihood import token_nats
from brigantine_training.language.network import Llama
from numpy.typing import NDArray

from tests.training.language.plays import tiny_language_config


def _uniform(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.full((*ids.shape, 8), 1000.0, np.float32)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 16 * 40 + 3])
def test_every_token_is_counted_once(tokens: int):
    nats = token_nats(_uniform, np.zeros(tokens, np.int64), before=0, context=16)
    assert nats.shape == (tokens,)
    assert nats == pytest.approx(math.log(8))


def test_no_tokens_need_nothing():
    assert token_nats(_uniform, np.empty(0, np.int64), before=0, context=16).tolist() == []


def test_a_token_is_predicted_from_the_one_before_it_and_its_window():
    """One token after the other, each window by itself."""
    torch.manual_seed(0)
    network = Llama(tiny_language_config()).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.5)
    tokens = np.random.default_rng(0).integers(288, size=3 * 32 + 5)

    def predict(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(ids)).numpy()

    nats = token_nats(predict, tokens, before=7, context=32)
    stream = [7, *tokens.tolist()]
    for place in (0, 1, 31, 32, 40, 96, 100):
        window = stream[place // 32 * 32 : place + 1]
        with torch.inference_mode():
            odds = network(torch.tensor([window]))[0, -1].double().log_softmax(0)
        assert nats[place] == pytest.approx(-odds[stream[place + 1]].item(), rel=1e-5)
