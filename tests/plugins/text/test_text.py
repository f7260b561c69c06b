"""The text plugin, through the engine: what is asked for is what is written."""

import asyncio
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brigantine import Media
from brigantine.engine import Caller, Engine
from brigantine.errors import BadParams
from brigantine.model import MANIFEST, sha256_of
from brigantine.settings import Settings
from brigantine.testing import conformance, examine
from brigantine_text import TextPlugin

from tests.scribble import CONFIG, scribble_model
from tests.service.pretended import pretend
from tests.service.toys import plugin_of

LONG = "the ship sails at dawn, the wind is fair; she carries tea, silk and a cat. " * 2
"""More than a chunk of tokens."""


def _scribble() -> Path:
    return scribble_model(Path(tempfile.mkdtemp()))


test_keeps_the_contract = conformance(TextPlugin, _scribble, calls=50, patience_s=3)


def test_its_inputs_are_what_a_graph_in_half_precision_takes(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch)
    assert examine(TextPlugin, _scribble(), only=["inputs"]) == []


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("models")
    scribble_model(folder)
    engine = Engine.start(Settings(models_dir=folder), only="scribble")
    yield engine
    engine.close()


def several(engine: Engine, **body: Any) -> list[Media]:
    return list(asyncio.run(engine.generate("scribble", body)).media)


def one(engine: Engine, **body: Any) -> Media:
    return several(engine, **body)[0]


def refused(engine: Engine, **body: Any) -> str:
    with pytest.raises(BadParams) as error:
        one(engine, **body)
    return str(error.value)


@pytest.mark.usefixtures("on_cpu")
def test_nothing_is_kept_of_the_warm_up(tmp_path: Path):
    scribble_model(tmp_path)
    engine = Engine.start(Settings(models_dir=tmp_path), only="scribble")
    assert not plugin_of(engine, "scribble").decoder._slots.tensors.array.any()
    engine.close()


def test_a_text_has_as_many_tokens_as_are_wanted(engine: Engine):
    made = one(engine, prompt="tea", max_tokens=7, seed=1)
    assert made.type == "text/plain; charset=utf-8"
    assert made.info["finish_reason"] == "length"
    assert made.info["usage"] == {"prompt_tokens": 2, "completion_tokens": 7, "cached_tokens": 0}
    assert one(engine, prompt="tea", max_tokens=0).body == b""
    assert len(one(engine, prompt="tea", max_tokens=3, seed=1).body) < len(made.body)


def test_without_a_limit_it_fills_the_context(engine: Engine):
    made = one(engine, prompt="tea", max_tokens=None, seed=2, temperature=0.0)
    assert made.info["usage"]["completion_tokens"] == CONFIG["max_position_embeddings"] - 2
    assert made.info["finish_reason"] == "length"


def test_what_does_not_fit_is_refused_with_the_numbers(engine: Engine):
    assert refused(engine, prompt="tea", max_tokens=160) == (
        "max_tokens: expected at most 158, for a context of 160 tokens, 2 in the prompt, got 160"
    )
    too_long = "prompt: expected at most 159 tokens, for a context of 160; shorten it by 41, got 200 tokens"
    assert too_long in refused(engine, prompt=[5] * 200)
    assert too_long in refused(engine, prompt=[5] * 200, max_tokens=16)
    assert "expected at most 159 tokens" in refused(engine, prompt=[5] * 160)
    assert "expected at most 160 tokens" in refused(engine, prompt=[5] * 161, max_tokens=0)
    assert "at most 159 tokens" in refused(engine, prompt=[5] * 160, max_tokens=None)


def test_a_prompt_may_be_words_or_tokens_or_nothing(engine: Engine):
    tokens = plugin_of(engine, "scribble").vocabulary.encode("tea and silk")
    same = {"max_tokens": 9, "seed": 4}
    assert one(engine, prompt="tea and silk", **same).body == one(engine, prompt=tokens, **same).body
    assert one(engine, **same).info["usage"]["prompt_tokens"] == 1  # the token that a text begins with
    assert "prompt: expected tokens under 288, got 288" in refused(engine, prompt=[288])


def test_a_conversation(engine: Engine):
    messages = [{"role": "user", "content": "tea"}]
    same = {"max_tokens": 9, "seed": 4}
    assert (
        one(engine, messages=messages, **same).body
        == one(engine, prompt="USER:\ntea\n\nASSISTANT:\n", **same).body
    )
    assert "messages: expected no prompt beside them" in refused(engine, messages=messages, prompt="tea")


def test_a_stop_ends_the_text_before_it(engine: Engine):
    whole = one(engine, prompt="tea", max_tokens=60, temperature=0.0).body.decode()
    stop = whole[9:12]
    made = one(engine, prompt="tea", max_tokens=60, temperature=0.0, stop=["never there", stop])
    assert made.body.decode() == whole[: whole.index(stop)]
    assert made.info["finish_reason"] == "stop"
    assert made.info["usage"]["completion_tokens"] < 60
    assert one(engine, prompt="tea", max_tokens=60, temperature=0.0, stop=stop).body == made.body


def test_the_models_own_end_ends_it(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    body = {"prompt": "tea", "max_tokens": 20, "temperature": 0.0, "logprobs": 0}
    whole = one(engine, **body)
    plugin = plugin_of(engine, "scribble")
    last = next(
        token
        for token, piece in enumerate(plugin.pieces)
        if list(piece) == whole.info["logprobs"][5]["bytes"]
    )
    monkeypatch.setattr(plugin, "ends", frozenset({last}))
    made = one(engine, **body)
    assert made.info["finish_reason"] == "stop"
    assert made.info["usage"]["completion_tokens"] <= 6


@pytest.mark.parametrize(
    ("burst_s", "asked", "steps"),
    [
        (math.inf, {}, 2),  # the prompt is read in one of them, with which comes the first token
        (0.0, {}, 40),
        (math.inf, {"stop": "zzzz"}, 40),
        (math.inf, {"logprobs": 1}, 40),
        (math.inf, {"frequency_penalty": 0.5}, 40),
        (math.inf, {"temperature": 0.0}, 2),
    ],
)
def test_a_short_step_makes_several_tokens_where_nobody_looks_at_each(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, burst_s: float, asked: dict[str, Any], steps: int
):
    taken: list[int] = []
    step = TextPlugin.step

    def counted(self: TextPlugin, states: Any) -> Any:
        taken.append(len(states))
        return step(self, states)

    monkeypatch.setattr("brigantine_text.plugin._BURST_S", burst_s)
    with monkeypatch.context() as patch:
        patch.setattr(TextPlugin, "step", counted)
        made = one(engine, prompt="tea", max_tokens=40, seed=9, **asked)
    assert (made.info["usage"]["completion_tokens"], len(taken)) == (40, steps)

    monkeypatch.setattr("brigantine_text.plugin._BURST_S", 0.0)
    again = one(engine, prompt="tea", max_tokens=40, seed=9, **asked)
    assert (again.body, again.info["finish_reason"]) == (made.body, made.info["finish_reason"])


def test_texts_that_end_within_a_burst_end_where_they_would(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """One by its length, another one by the model's own end, with others that go on."""
    monkeypatch.setattr(plugin_of(engine, "scribble"), "ends", frozenset(range(270, 288)))
    bodies = [{"prompt": "tea", "max_tokens": 5 + 9 * k, "seed": k} for k in range(6)]

    async def together() -> list[Media]:
        made = await asyncio.gather(*(engine.generate("scribble", body) for body in bodies))
        return [generation.media[0] for generation in made]

    made: list[list[Media]] = []
    for burst_s in (math.inf, 0.0):
        monkeypatch.setattr("brigantine_text.plugin._BURST_S", burst_s)
        made.append(asyncio.run(together()))
    in_bursts, in_steps = made
    assert [(text.body, text.info) for text in in_bursts] == [(text.body, text.info) for text in in_steps]
    assert {text.info["finish_reason"] for text in in_bursts} == {"stop", "length"}


def test_a_burst_that_fails_is_made_again_by_those_who_are_not_to_blame(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    """After it has written some tokens into the cache of all of them."""
    decoder = plugin_of(engine, "scribble").decoder
    go_on, calls = decoder.go_on, []
    bodies = [{"prompt": "tea", "max_tokens": 30, "seed": seed} for seed in range(4)]

    def failing(places: Any, tokens: Any, lengths: Any, choose: Any) -> Any:
        made: list[Any] = []

        def chosen(logits: Any) -> Any:
            if len(places) > 1 and max(lengths) + len(made) > 12:
                raise RuntimeError("too many")
            made.append(choose(logits))
            return made[-1]

        calls.append(len(places))
        return go_on(places, tokens, lengths, chosen)

    async def together() -> list[bytes]:
        made = await asyncio.gather(*(engine.generate("scribble", body) for body in bodies))
        return [generation.media[0].body for generation in made]

    monkeypatch.setattr("brigantine_text.plugin._BURST_S", math.inf)
    expected = [one(engine, **body).body for body in bodies]
    monkeypatch.setattr(decoder, "go_on", failing)
    assert asyncio.run(together()) == expected
    assert max(calls) > 1


def test_several_texts_have_seeds_of_their_own(engine: Engine):
    generation = asyncio.run(
        engine.generate("scribble", {"prompt": "tea", "n": 3, "seed": 5, "max_tokens": 12})
    )
    bodies = [media.body for media in generation.media]
    assert len(set(bodies)) == 3
    for seed, body in zip(generation.seeds, bodies, strict=True):
        assert one(engine, prompt="tea", seed=seed, max_tokens=12).body == body


def test_log_probabilities_are_the_models_own(engine: Engine):
    body = {"prompt": "tea", "max_tokens": 5, "seed": 3, "temperature": 0.5}
    told = one(engine, **body, logprobs=2).info["logprobs"]
    assert len(told) == 5
    assert all(
        len(token["top"]) == 2 and token["logprob"] <= token["top"][0]["logprob"] + 1e-9 for token in told
    )
    assert (
        b"".join(bytes(token["bytes"]) for token in told).decode("utf-8", "ignore")
        in one(engine, **body).body.decode()
    )
    assert "logprobs" not in one(engine, **body).info
    json.dumps(told)


def test_an_echo_has_the_prompt_and_its_log_probabilities(engine: Engine):
    made = one(engine, prompt=LONG, max_tokens=0, echo=True, logprobs=0)
    told = made.info["logprobs"]
    assert made.body.decode() == LONG
    assert told[0]["logprob"] is None
    assert len(told) == made.info["usage"]["prompt_tokens"]
    # Each is what the model says of it as the next token.
    tokens = plugin_of(engine, "scribble").vocabulary.encode(LONG)
    for at in (1, 7, 31, 32, 33):
        [next_one] = one(engine, prompt=tokens[:at], max_tokens=1, logprobs=20, temperature=0.0).info[
            "logprobs"
        ]
        tops = {bytes(top["bytes"]): top["logprob"] for top in next_one["top"]}
        if (piece := bytes(told[at]["bytes"])) in tops:
            assert math.isclose(tops[piece], told[at]["logprob"], abs_tol=1e-4)


def test_a_beginning_that_was_read_is_not_read_again_and_changes_nothing(tmp_path: Path):
    scribble_model(tmp_path)
    fresh = Engine.start(Settings(models_dir=tmp_path), only="scribble")
    body = {"prompt": LONG + "dawn", "max_tokens": 30, "seed": 8}
    first = one(fresh, **body)
    second = one(fresh, **body)
    other = one(fresh, prompt=LONG + "tea", max_tokens=30, seed=8)
    fresh.close()
    anew = Engine.start(Settings(models_dir=tmp_path), only="scribble")
    alone = one(anew, prompt=LONG + "tea", max_tokens=30, seed=8)
    anew.close()
    assert [made.info["usage"]["cached_tokens"] for made in (first, second, other)] == [0, 32, 32]
    assert first.body == second.body
    assert other.body == alone.body


def test_parts_are_the_beginning_of_the_text_and_tell_their_own_tokens(engine: Engine):
    parts: list[Media] = []
    ends: list[Media] = []

    def show(index: int, media: Media, done: bool) -> None:
        (ends if done else parts).append(media)

    body = {"prompt": "tea", "max_tokens": 30, "seed": 6, "logprobs": 1, "echo": True}
    [made] = asyncio.run(engine.generate("scribble", body, caller=Caller(on_part=show))).media
    assert ends == [made]
    assert len(parts) > 10
    assert parts[0].body.startswith(b"tea")
    assert made.body.startswith(b"".join(part.body for part in parts))
    told = [token for part in parts for token in part.info["logprobs"]]
    assert told == made.info["logprobs"][: len(told)]


@pytest.mark.usefixtures("on_cpu")
def test_more_texts_than_places_wait_for_one(tmp_path: Path):
    scribble_model(tmp_path, max_batch=8)
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, of 16 float32
    options = {"scribble": {"cache_bytes": token_bytes * 160 * 4}}
    small = Engine.start(Settings(models_dir=tmp_path, model_options=options), only="scribble")
    made = several(small, prompt="tea", n=20, seed=5, max_tokens=12)
    alone = [one(small, prompt="tea", seed=seed, max_tokens=12) for seed in (5,)]
    assert len(plugin_of(small, "scribble").decoder._slots._owners) == 4
    small.close()
    assert made[0].body == alone[0].body
    assert len({media.body for media in made}) == 20


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda folder: (folder / "config.json").write_text('{"eos_token_id": 0}'),
            "expected one of max_position_emb",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json: expected a tokenizer"),
    ],
)
def test_a_folder_that_lacks_something_is_rejected_with_the_reason(tmp_path: Path, spoil: Any, reason: str):
    folder = scribble_model(tmp_path)
    spoil(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: sha256_of(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    engine = Engine.start(Settings(models_dir=tmp_path), only="scribble")
    assert reason in engine.registry.models["scribble"].reason
    engine.close()
