"""Networks that are traced: what attends by ONNX Runtime's own operator, what does not, and that both say the same."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from brigantine.unmasking import unmask
from brigantine_training.language import attending, foreign
from brigantine_training.language.attending import Attending
from brigantine_training.language.tracing import CacheSizes, Traced, traced
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tests.hub import ARCHITECTURES, VOCABULARY, hub_folder

LLAMA = ARCHITECTURES["Llama"]
MORE: dict[str, dict[str, Any]] = {
    "Gemma2": LLAMA | {"head_dim": 16, "query_pre_attn_scalar": 8, "sliding_window": 24},
    "GPTNeoX": LLAMA,
    "OPT": {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 1, "ffn_dim": 48}
    | {"num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 64},
    "Qwen3": LLAMA | {"head_dim": 16},
    "Falcon": {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
}


@pytest.fixture(autouse=True)
def more(monkeypatch: pytest.MonkeyPatch) -> None:
    for architecture, sizes in MORE.items():
        monkeypatch.setitem(ARCHITECTURES, architecture, sizes)


def made_of(folder: Path, architecture: str, **changes: Any) -> tuple[PreTrainedModel, CacheSizes, Traced]:
    hub_folder(folder, architecture, **changes)
    with foreign._quiet():
        network = foreign._load(folder)
        sizes = foreign._sizes(folder, network)
        return network, sizes, traced(network, sizes)


def attention_of(made: Traced) -> list[onnx_ir.Node]:
    return [node for node in made.graph.graph if node.op_type == "GroupQueryAttention"]


def assert_says_the_same(network: PreTrainedModel, sizes: CacheSizes, made: Traced) -> None:
    """One row that is read in parts, and two that go on together."""
    engine = onnxruntime.InferenceSession(onnx_ir.to_proto(made.graph).SerializeToString())
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, (2, 70)))
    with torch.no_grad():
        expected = network(input_ids=ids).logits.numpy()
    close = 2e-4 * np.abs(expected).max()
    for rows, ends in ((1, (40, 68, 69, 70)), (2, (68, 69, 70))):
        logits = said(engine, ids[:rows].numpy(), ends, sizes)
        np.testing.assert_allclose(logits, expected[:rows], atol=close)


def said(engine: Any, ids: np.ndarray, ends: Sequence[int], sizes: CacheSizes) -> np.ndarray:
    """The logits [N, T, vocabulary] of ids [N, T] that are read in parts up to these ends."""
    names = {node.name for node in engine.get_inputs()}
    rows = len(ids)
    nothing = np.zeros((rows, sizes.heads, 0, sizes.head_size), np.float32)
    past = {f"past_key_values.{name}": nothing for name in sizes.names}
    parts: list[np.ndarray] = []
    for begin, end in pairwise((0, *ends)):
        feeds = {
            "input_ids": ids[:, begin:end],
            "attention_mask": np.ones((rows, end), np.int64),
            "position_ids": np.arange(begin, end)[None].repeat(rows, 0),
        }
        logits, *present = engine.run(None, {name: feeds[name] for name in feeds if name in names} | past)
        past = dict(zip(past, present, strict=True))
        parts.append(logits)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("GPT2", {}),
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True, "n_layer": 2}),
        ("Gemma2", {}),
        ("GPTNeoX", {}),
        ("Mistral", {}),
        ("OPT", {}),
        ("Qwen3", {"num_hidden_layers": 1}),
    ],
)
def test_what_attends_as_it_is_told_gets_the_operator_that_appends_in_place(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
):
    network, sizes, made = made_of(tmp_path, architecture, **changes)

    assert (made.attention, len(attention_of(made))) == ("GroupQueryAttention", sizes.layers)
    assert_says_the_same(network, sizes, made)


def test_window_cap_and_scale_are_those_of_each_layer(tmp_path: Path):
    _, _, made = made_of(tmp_path, "Gemma2")

    told = [{name: one.value for name, one in node.attributes.items()} for node in attention_of(made)]
    assert [one["local_window_size"] for one in told] == [24, -1]
    assert {one["softcap"] for one in told} == {50.0}
    assert {round(one["scale"], 6) for one in told} == {round(8**-0.5, 6)}


def test_its_lengths_can_be_told_instead_of_a_mask(tmp_path: Path):
    _, _, made = made_of(tmp_path, "GPT2")
    graph = onnx_ir.to_proto(made.graph).graph

    assert unmask(graph)
    assert "attention_mask" not in [value.name for value in graph.input]


def test_what_was_reshaped_there_and_back_is_read_as_it_was(tmp_path: Path):
    _, _, made = made_of(tmp_path, "GPT2")

    [attention] = attention_of(made)
    makers = [value.producer() for value in attention.inputs[:3] if value is not None]
    assert [maker.op_type for maker in makers if maker is not None] == ["Split"] * 3


@pytest.mark.parametrize(
    ("architecture", "changes", "reason"),
    [
        ("Falcon", {}, "of 1 layers 0 attend as they are told"),
        ("GPT2", {"n_embd": 48, "n_head": 4}, "its heads have 12, 12 and 12 numbers"),
    ],
)
def test_what_attends_in_its_own_way_keeps_it(
    tmp_path: Path, architecture: str, changes: dict[str, Any], reason: str
):
    network, sizes, made = made_of(tmp_path, architecture, **changes)

    assert (made.attention, attention_of(made)) == (f"its own, {reason}", [])
    assert_says_the_same(network, sizes, made)


def test_what_a_token_sees_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mask by which a token sees those after it is nothing that the operator can do."""
    monkeypatch.setattr(attending, "eager_mask", lambda **asked: torch.zeros(1, 1, *[asked["q_length"]] * 2))

    _, _, made = made_of(tmp_path, "GPT2")

    assert (made.attention, attention_of(made)) == ("its own, a token sees others than those before it", [])


@pytest.mark.parametrize("said", [True, False])
def test_a_window_that_no_short_text_reaches_over_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool
):
    """By what the last token of the longest text sees, whether or not the attention is told of the window."""
    attend = Attending.attend

    def untold(attention: Attending, *given: Any, **others: Any) -> tuple[torch.Tensor, None]:
        return attend(attention, *given, **others | ({} if said else {"sliding_window": None}))

    monkeypatch.setattr(Attending, "attend", untold)

    _, _, made = made_of(tmp_path, "Mistral", sliding_window=100)

    if said:
        [node] = attention_of(made)
        assert (made.attention, node.attributes["local_window_size"].value) == ("GroupQueryAttention", 100)
    else:
        assert made.attention == "its own, at the end of a long text a token sees others than all before it"


def test_keys_that_change_behind_the_cache_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    attend = Attending.attend

    def with_other_keys(
        attention: Attending, module: Any, query: Any, key: Any, *given: Any, **others: Any
    ) -> tuple[torch.Tensor, None]:
        return attend(attention, module, query, 2 * key, *given, **others)

    monkeypatch.setattr(Attending, "attend", with_other_keys)

    _, _, made = made_of(tmp_path, "GPT2")

    assert made.attention == "its own, it attends to something else than its cache"


def test_a_mask_of_its_own_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    attend = Attending.attend

    def with_a_copy(
        attention: Attending,
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        changed = None if attention_mask is None else attention_mask.clone()
        return attend(attention, module, query, key, value, attention_mask=changed, **others)

    monkeypatch.setattr(Attending, "attend", with_a_copy)

    _, _, made = made_of(tmp_path, "GPT2")

    assert made.attention == "its own, its mask is one of its own"


def test_attention_with_more_than_keys_and_values_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    attend = Attending.attend

    def with_sinks(attention: Attending, *given: Any, **others: Any) -> tuple[torch.Tensor, None]:
        return attend(attention, *given, **others, s_aux=torch.zeros(4))

    monkeypatch.setattr(Attending, "attend", with_sinks)

    _, _, made = made_of(tmp_path, "GPT2")

    assert (made.attention, attention_of(made)) == ("its own, its attention has s_aux", [])


def test_transformers_is_left_as_it_was(tmp_path: Path):
    network, _, _ = made_of(tmp_path, "GPT2")

    assert network.config._attn_implementation == "eager"
    assert attending._NAME not in {*AttentionInterface(), *AttentionMaskInterface()}


def test_what_transformers_refuses_to_be_told_is_traced_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(network: PreTrainedModel, implementation: str) -> None:
        if implementation != "eager":
            raise ValueError(f"GPT2 does not know {implementation}.\nAt length.")

    monkeypatch.setattr(PreTrainedModel, "set_attn_implementation", refuse)

    _, _, made = made_of(tmp_path, "GPT2")

    assert made.attention == "its own, ValueError: GPT2 does not know group_query."
