"""The tokenizer of a folder: any text is what its tokens stand for, and a conversation is what its template says."""

import json
from pathlib import Path

import pytest
from brigantine_text.tokens import Vocabulary
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tests.scribble import scribble_model

CHAT = [{"role": "user", "content": "tea?"}, {"role": "assistant", "content": "tea."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scribble_model(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> Vocabulary:
    return Vocabulary(folder)


@given(text=st.text(max_size=40))
def test_any_text_is_what_its_tokens_stand_for(vocabulary: Vocabulary, text: str):
    assert vocabulary.decode(vocabulary.encode(text)) == text.encode()


def test_a_token_that_only_tells_something_stands_for_nothing(vocabulary: Vocabulary):
    assert vocabulary.pieces[0] == b""
    assert len(vocabulary.pieces) == 288


def test_words_of_sentencepiece(tmp_path: Path):
    words = {"<unk>": 0, "\N{LOWER ONE EIGHTH BLOCK}tea": 1, "<0x0A>": 2, "cup": 3}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "), decoders.ByteFallback()]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Vocabulary(tmp_path).decode([1, 3, 2]) == b" teacup\n"


def test_other_tokenizers_are_asked_for_each_token(tmp_path: Path):
    tokenizer = Tokenizer(models.WordPiece(vocab={"[UNK]": 0, "tea": 1}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Vocabulary(tmp_path).decode([1]) == b"tea"


def said(folder: Path, config: dict[str, object]) -> str:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = Vocabulary(folder)
    return vocabulary.decode(vocabulary.encode_chat(CHAT)).decode()


def test_a_conversation_is_written_as_the_template_says(tmp_path: Path):
    folder = scribble_model(tmp_path)
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | tojson }}{% endfor %}"
    assert said(folder, {}) == "USER:\ntea?\n\nASSISTANT:\ntea.\n\nASSISTANT:\n"
    assert said(folder, {"chat_template": template}) == '[user] "tea?"[assistant] "tea."'
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    assert said(folder, {"chat_template": several}) == '[user] "tea?"[assistant] "tea."'
    ends = {
        "chat_template": "{{ bos_token }}|{{ eos_token }}",
        "bos_token": "<b>",
        "eos_token": {"content": "<e>"},
    }
    assert said(folder, ends) == "<b>|<e>"
    (folder / "chat_template.jinja").write_text("from a file")
    assert said(folder, {"chat_template": template}) == "from a file"


def test_a_template_may_refuse_and_may_not_reach_out(tmp_path: Path):
    folder = scribble_model(tmp_path)
    with pytest.raises(ValueError, match="refuses them: no roles"):
        said(folder, {"chat_template": "{{ raise_exception('no roles') }}"})
    with pytest.raises(ValueError, match=r"unsafe|access"):
        said(folder, {"chat_template": "{{ messages.__class__.__mro__ }}"})
    with pytest.raises(ValueError, match="no Jinja template"):
        said(folder, {"chat_template": "{% for %}"})


def test_what_is_no_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected a tokenizer"):
        Vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected a tokenizer"):
        Vocabulary(tmp_path)
