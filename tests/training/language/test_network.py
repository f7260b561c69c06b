"""The network: causal, by position, with the names and sizes of Hugging Face's Llama."""

from __future__ import annotations

import pytest
import torch
from brigantine_training.config import LanguageConfig, make_config, read_preset
from brigantine_training.language import network as module
from brigantine_training.language.network import Llama
from torch.nn import functional

from tests.training.language.plays import tiny_language_config


@pytest.fixture
def network() -> Llama:
    torch.manual_seed(0)
    network = Llama(tiny_language_config()).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.3)
    return network


def _ids(rows: int = 3, tokens: int = 20) -> torch.Tensor:
    return torch.randint(288, (rows, tokens), generator=torch.Generator().manual_seed(1))


def test_a_later_token_changes_nothing_before_it(network: Llama):
    ids = _ids()
    changed = ids.clone()
    changed[:, 12] += 1
    one, other = network(ids), network(changed)
    assert torch.equal(one[:, :12], other[:, :12])
    assert not torch.allclose(one[:, 12], other[:, 12])
    assert not torch.allclose(one[:, 19], other[:, 19])


def test_order_counts(network: Llama):
    ids = _ids(1, 8)
    swapped = ids[:, [1, 0, *range(2, 8)]]
    assert not torch.allclose(network(ids)[:, -1], network(swapped)[:, -1], atol=1e-4)


@pytest.mark.parametrize("length", [1, 5, 19, 32])
def test_blocks_of_queries_are_one_causal_attention(length: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BLOCK", 6)
    query, key, value = torch.randn(3, 2, 4, length, 8, generator=torch.Generator().manual_seed(0))
    expected = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
    assert torch.allclose(module.attended(query, key, value), expected, atol=1e-6)


def test_bfloat16_is_near_float32(network: Llama):
    with torch.autocast("cpu", torch.bfloat16):
        short = network(_ids())
    assert short.dtype == torch.bfloat16
    exact = network(_ids())
    assert exact.dtype == torch.float32
    assert (short.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_matrices_of_the_layers_are_those_that_muon_gets(network: Llama):
    names = {
        name for name, weight in network.named_parameters() if any(weight is m for m in network.matrices())
    }
    assert names == {name for name in network.state_dict() if name.endswith("_proj.weight")}
    assert len(names) == 2 * 7


def test_the_shipped_network_fits_into_eight_megabytes():
    config = make_config(read_preset("shakespeare"), "shakespeare")
    assert isinstance(config, LanguageConfig)
    parameters = sum(weight.numel() for weight in Llama(config).parameters())
    assert 2e6 < parameters < 4e6
    assert 2 * parameters < 7.5e6
