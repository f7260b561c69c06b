"""The decoder: the same logits whichever way the cache is kept, and the same bits in any company."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine.decoder import _IN_PLACE, _ROUND, CHUNK, Decoder
from brigantine.errors import ModelInvalid
from brigantine.model import Model
from brigantine.session import Session, SessionOptions, runtime
from brigantine.slots import Place
from brigantine.tensors import DeviceTensors, HostTensors
from brigantine_training.language.export import _quantised
from brigantine_training.language.graph import llama_graph

from tests.parrot import parrot_model
from tests.scribble import CONFIG, language_model, scribble_model, scribble_weights
from tests.tiny import tiny_model

PROMPTS = [[(7 * at + row) % 288 for at in range(length)] for row, length in enumerate((1, 5, 33, 64, 90))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    scribble_model(folder)
    scribble_model(folder, "masked", masked=True)
    parrot_model(folder)
    return folder


@pytest.fixture
def session(folders: Path) -> Session:
    return opened(folders / "scribble")


@pytest.fixture(params=["on the host", "on a device"])
def there(request: pytest.FixtureRequest, session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """With its cache where a CPU has it, and where a GPU has it; the device is the CPU."""
    if request.param == "on a device":
        monkeypatch.setattr(session, "tensors", partial(DeviceTensors, runtime(), "cpu"))
    return session


def opened(folder: Path, **options: Any) -> Session:
    return Session.open(Model.open(folder), SessionOptions(device="cpu", **options))


def read(decoder: Decoder, prompt: list[int], reuse: bool = True) -> tuple[Place, np.ndarray]:
    """A place with the prompt in it, and the logits of its last token."""
    taken = decoder.place(prompt, reuse)
    assert taken is not None
    place, start = taken
    logits = np.empty((0, 0))
    for at in range(start, len(prompt), CHUNK):
        logits = decoder.read(place, prompt, at)
    return place, logits[-1]


def test_a_graph_that_appends_in_place_is_known_by_trying(session: Session):
    decoder = Decoder(session, 160)
    assert decoder._padding == _IN_PLACE
    assert (decoder.context, decoder.vocabulary) == (160, 288)
    assert isinstance(decoder._slots.tensors, HostTensors)
    assert not decoder._slots.tensors.array.any()


@pytest.mark.parametrize("kind", ["scribble", "masked", "parrot"])
def test_a_token_that_is_decoded_is_one_that_is_read(folders: Path, kind: str):
    decoder = Decoder(opened(folders / kind), 160)
    assert decoder._padding == (_ROUND if kind == "parrot" else _IN_PLACE)
    for prompt in PROMPTS:
        place, _ = read(decoder, prompt)
        for length in range(len(prompt), len(prompt) + 3):
            logits = decoder.decode([place], [11], [length])
            _, expected = read(decoder, [*prompt, *[11] * (length + 1 - len(prompt))])
            np.testing.assert_allclose(logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["scribble", "masked", "parrot"])
def test_company_changes_no_bit(folders: Path, kind: str):
    session = opened(folders / kind)

    def alone(prompt: list[int]) -> bytes:
        decoder = Decoder(session, 160)
        place, logits = read(decoder, prompt)
        return logits.tobytes() + decoder.decode([place], [11], [len(prompt)]).tobytes()

    decoder = Decoder(session, 160)
    begun = [read(decoder, prompt) for prompt in PROMPTS]
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.permutation(len(PROMPTS))[: rng.integers(1, len(PROMPTS) + 1)]
        places, lengths = [begun[row][0] for row in rows], [len(PROMPTS[row]) for row in rows]
        logits = decoder.decode(places, [11] * len(rows), lengths)
        for row, made in zip(rows, logits, strict=True):
            assert begun[row][1].tobytes() + made.tobytes() == alone(PROMPTS[row])


@pytest.mark.parametrize("kind", ["scribble", "masked", "parrot"])
def test_tokens_that_are_made_in_one_go_have_the_bits_of_single_ones(folders: Path, kind: str):
    session = opened(folders / kind)
    assert made_in_one_go(Decoder(session, 160)) == made_one_by_one(Decoder(session, 160))


def test_they_have_on_a_device_too(there: Session, session: Session):
    assert made_in_one_go(Decoder(there, 160)) == made_one_by_one(Decoder(session, 160))


def begun_in_reverse(decoder: Decoder) -> tuple[list[Place], list[int], list[int]]:
    begun = [read(decoder, prompt) for prompt in PROMPTS][::-1]
    tokens = [int(logits.argmax()) for _, logits in begun]
    return [place for place, _ in begun], tokens, [len(prompt) for prompt in PROMPTS][::-1]


def made_in_one_go(decoder: Decoder) -> tuple[list[list[int]], bytes]:
    """Six greedy tokens of each prompt, and the last logits."""
    made: list[list[int]] = []

    def choose(logits: np.ndarray) -> list[int] | None:
        made.append(logits.argmax(axis=1).tolist())
        return made[-1] if len(made) < 6 else None

    logits = decoder.go_on(*begun_in_reverse(decoder), choose)
    return made, logits.tobytes()


def made_one_by_one(decoder: Decoder) -> tuple[list[list[int]], bytes]:
    places, tokens, lengths = begun_in_reverse(decoder)
    made: list[list[int]] = []
    logits = np.empty((0, 0))
    for further in range(6):
        logits = decoder.decode(places, tokens, [length + further for length in lengths])
        tokens = logits.argmax(axis=1).tolist()
        made.append(tokens)
    return made, logits.tobytes()


def test_as_many_tokens_and_lengths_as_places_are_asked_for(folders: Path):
    decoder = Decoder(opened(folders / "scribble"), 160)
    places = [read(decoder, prompt)[0] for prompt in PROMPTS[:2]]
    lengths = [len(prompt) for prompt in PROMPTS[:2]]
    for tokens, told in (([11], lengths), ([11, 12], lengths[:1]), ([11, 12, 13], lengths)):
        with pytest.raises(ValueError, match="for each of 2 places, got"):
            decoder.decode(places, tokens, told)
    with pytest.raises(ValueError, match="expected a token for each of 2 places, got 1"):
        decoder.go_on(places, [11, 12], lengths, lambda _: [11])
    decoder.decode(places, [11, 12], lengths)  # it serves again


def test_lengths_give_the_bits_of_a_mask(folders: Path):
    told, masked = (opened(folders / name) for name in ("scribble", "masked"))
    assert told.is_unmasked
    assert not masked.is_unmasked
    one, other = Decoder(told, 160), Decoder(masked, 160)
    for prompt in PROMPTS:
        (place, logits), (kept, expected) = read(one, prompt), read(other, prompt)
        assert logits.tobytes() == expected.tobytes()
        for length in range(len(prompt), len(prompt) + 3):
            assert (
                one.decode([place], [length], [length]).tobytes()
                == other.decode([kept], [length], [length]).tobytes()
            )


def test_a_graph_that_goes_by_the_number_of_tokens_is_given_no_padding(
    folders: Path, session: Session, monkeypatch: pytest.MonkeyPatch
):
    in_place = Decoder(opened(folders / "scribble"), 160)

    def refuse(*_: object) -> None:
        raise RuntimeError("the cache that comes out has another shape")

    monkeypatch.setattr(session, "bound", refuse)
    decoder = Decoder(session, 160)
    assert decoder._padding == 1
    begun = [[read(one, prompt)[0] for prompt in PROMPTS] for one in (in_place, decoder)]
    for step in range(3):
        lengths = [len(prompt) + step for prompt in PROMPTS]
        expected, made = (
            one.decode(places, [11 + step] * len(PROMPTS), lengths)
            for one, places in zip((in_place, decoder), begun, strict=True)
        )
        np.testing.assert_allclose(made, expected, atol=1e-4)


def test_what_another_has_read_gives_the_same_bits(there: Session):
    decoder = Decoder(there, 160)
    kept, first = read(decoder, PROMPTS[4])
    taken = decoder.place(PROMPTS[4])
    assert taken is not None
    assert taken[1] == 64
    assert decoder.read(taken[0], PROMPTS[4], 64)[-1].tobytes() == first.tobytes()
    assert decoder.decode([taken[0]], [11], [90]).tobytes() == decoder.decode([kept], [11], [90]).tobytes()


def test_a_cache_on_a_device_gives_the_bits_of_one_on_the_host_in_all_slots(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    host = Decoder(session, 160)
    monkeypatch.setattr(session, "tensors", partial(DeviceTensors, runtime(), "cpu"))
    device = Decoder(session, 160)
    assert isinstance(device._slots.tensors, DeviceTensors)
    begun = [[read(decoder, prompt)[0] for prompt in PROMPTS] for decoder in (host, device)]
    lengths = list(map(len, PROMPTS))
    rng = np.random.default_rng(0)
    for step in range(30):  # some go on, and what the others have stays
        rows = rng.permutation(len(PROMPTS))[: rng.integers(1, len(PROMPTS) + 1)]
        tokens, before = [int(11 + step + row) for row in rows], [lengths[row] for row in rows]
        made = [
            decoder.decode([places[row] for row in rows], tokens, before)
            for decoder, places in zip((host, device), begun, strict=True)
        ]
        assert made[0].tobytes() == made[1].tobytes()
        for row in rows:
            lengths[row] += 1


def test_a_full_slot_on_a_device_is_not_written_past(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "tensors", partial(DeviceTensors, runtime(), "cpu"))
    decoder = Decoder(session, 160)
    full = [(3 * at) % 288 for at in range(160)]
    place, _ = read(decoder, full)
    other, _ = read(decoder, PROMPTS[1])
    assert decoder._slots.filled[decoder._slots.slot_of(place)] == 160

    decoder.decode([other], [11], [5])

    _, again = read(decoder, [*full[:128], 1])  # four chunks of it are still what they were
    _, expected = read(decoder, [*full[:128], 1], reuse=False)
    assert again.tobytes() == expected.tobytes()


def test_how_much_is_used(session: Session):
    decoder = Decoder(session, 160)
    assert (decoder.used, session.cache_used) == (0, 0)
    place, _ = read(decoder, PROMPTS[3])
    assert session.cache_used == 64 / (8 * 160)
    del place
    assert decoder.used == 0


def test_a_context_is_cut_to_what_the_memory_holds(tmp_path: Path):
    folder = scribble_model(tmp_path)
    token_bytes = 2 * 2 * 2 * 16 * 4
    assert Decoder(opened(folder, cache_bytes=4 * 100 * token_bytes), 160).context == 100
    four = Decoder(opened(folder, cache_bytes=4 * 160 * token_bytes), 160)
    assert four.context == 160
    assert [four.place([1]) is not None for _ in range(1)] == [True]
    assert four._slots.tensors.shape == (4, 4, 2, 160, 16)
    with pytest.raises(ModelInvalid, match=r"BRIGANTINE_CACHE_BYTES allows 1000; allow more"):
        Decoder(opened(folder, cache_bytes=1000), 160)


def test_what_rounds_one_token_otherwise_than_several_is_appended_in_place_too(tmp_path: Path):
    graph = _quantised(llama_graph(CONFIG, scribble_weights(CONFIG), half=False))
    decoder = Decoder(opened(language_model(tmp_path / "int8", graph, CONFIG, 8)), 160)
    assert decoder._padding == _IN_PLACE
    assert decoder._error() > 0.01  # more than rounding


def test_a_graph_whose_logits_are_no_numbers_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch):
    run = session.run
    monkeypatch.setattr(
        session, "run", lambda feeds: {k: v * np.float32("nan") for k, v in run(feeds).items()}
    )

    with pytest.raises(
        ModelInvalid, match=r"to have the logits of the whole text at once.*BRIGANTINE_GPU_FP16=false"
    ):
        Decoder(session, 160)


def test_a_graph_that_is_no_language_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelInvalid, match="missing are attention_mask, input_ids, logits, past_key_values"):
        Decoder(opened(tiny_model(tmp_path)), 160)


def test_positions_are_given_where_the_graph_asks_for_them(tmp_path: Path):
    told, plain = (
        Decoder(opened(scribble_model(tmp_path, name, with_positions=asks)), 160)
        for name, asks in (("told", True), ("plain", False))
    )
    for length in (1, 33, 64):
        prompt = [5] * length
        (place, logits), (kept, expected) = read(told, prompt), read(plain, prompt)
        # The graph adds to its logits the position that it is told.
        np.testing.assert_allclose(logits - (length - 1), expected, atol=1e-4)
        logits, expected = told.decode([place], [11], [length]), plain.decode([kept], [11], [length])
        np.testing.assert_allclose(logits - length, expected, atol=1e-4)
