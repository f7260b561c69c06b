"""Tokens: words to numbers, numbers to bytes, and a conversation to words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

__all__ = ["Vocabulary"]

_PLAIN_CHAT = """\
{%- for message in messages %}{{ message.role | upper }}:
{{ message.content }}

{% endfor %}ASSISTANT:{{ "\n" }}"""
"""For a model without a template: a play, whose next speaker is the assistant."""


def _refuse(message: str) -> str:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


_ENVIRONMENT: Any = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.globals["raise_exception"] = _refuse
_ENVIRONMENT.filters["tojson"] = _to_json  # Jinja's own writes HTML's entities


class Vocabulary:
    """The tokenizer of a model's folder, in Hugging Face's files.

    Args:
        folder: has `tokenizer.json`, and perhaps `tokenizer_config.json` or `chat_template.jinja`.

    Raises:
        ValueError: `tokenizer.json` is missing or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json"
        try:
            text = file.read_text(encoding="utf-8")
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises Exception itself
            raise ValueError(
                f"{file}: expected a tokenizer of the library tokenizers, got: {error}"
            ) from error
        self.pieces: list[bytes] = self._all_pieces(json.loads(text))
        """The bytes that each token stands for; none for one that only tells the model something."""
        self._config = _read(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        self._chat = self._template(template.read_text(encoding="utf-8") if template.is_file() else None)

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, with those that the model wants at its beginning."""
        return self._tokenizer.encode(text).ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation whose next turn is the model's.

        Raises:
            ValueError: the template refuses it.
        """
        special = {f"{name}_token": self._special(name) for name in ("bos", "eos", "pad", "unk")}
        try:
            text = self._chat.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses them: {error}") from error
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> bytes:
        """What the tokens stand for. Not always whole characters."""
        return b"".join(self.pieces[token] for token in tokens)

    def _special(self, name: str) -> str:
        """A special token as it is written: the file has it as a string, or as an object with its content."""
        token: str | dict[str, Any] = self._config.get(f"{name}_token") or ""
        return str(token["content"]) if isinstance(token, dict) else token

    def _template(self, text: str | None) -> Template:
        """A folder has one template as a file, or one or several with names in its configuration."""
        stated = text or self._config.get("chat_template") or _PLAIN_CHAT
        if isinstance(stated, list):
            named = {one["name"]: one["template"] for one in cast("list[dict[str, str]]", stated)}
            stated = named.get("default", next(iter(named.values())))
        try:
            return _ENVIRONMENT.from_string(stated)
        except TemplateError as error:
            raise ValueError(f"its chat template is no Jinja template: {error}") from error

    def _all_pieces(self, described: Mapping[str, Any]) -> list[bytes]:
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        added = {
            token["id"]: b"" if token["special"] else token["content"].encode()
            for token in described["added_tokens"]
        }
        decoders = _types(described.get("decoder"))
        pieces: list[bytes] = []
        for number in range(max([size, *(one + 1 for one in added)])):
            word = self._tokenizer.id_to_token(number) or ""
            if number in added:
                pieces.append(added[number])
            elif "ByteLevel" in decoders:
                pieces.append(b"".join(_BYTES.get(letter) or letter.encode() for letter in word))
            elif "Metaspace" in decoders or "ByteFallback" in decoders:
                pieces.append(_sentencepiece(word))
            else:
                pieces.append(self._tokenizer.decode([number]).encode())
        return pieces


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _types(decoder: Any) -> set[str]:
    """The types of a decoder, and of those in it."""
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_types(one) for one in decoder.get("decoders", ())))


def _sentencepiece(word: str) -> bytes:
    """A word with its space written as a letter, or one byte as <0x0A>."""
    if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
        return bytes([int(word[3:5], 16)])
    return word.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _byte_letters() -> dict[str, bytes]:
    """The letters that GPT-2's tokenizer writes bytes with: printable ones as themselves, the others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*printable, *range(256, 256 + len(others))]
    return {chr(letter): bytes([byte]) for letter, byte in zip(letters, printable + others, strict=True)}


_BYTES = _byte_letters()
