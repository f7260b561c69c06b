"""The tokenizer: byte-level BPE, so that any text can be written in its tokens and none is unknown."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["END_OF_TEXT", "end_of_text", "merges_of", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
"""Stands before a text and after it; token 0."""


def train_tokenizer(text: str, vocabulary: int) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens: the end of a text, the 256 bytes, and what `text` repeats most.

    A text without enough repetition gives fewer tokens; the embedding keeps its rows all the same.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """The token of END_OF_TEXT."""
    token = tokenizer.token_to_id(END_OF_TEXT)
    assert token is not None  # it is the first that the trainer adds
    return token


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The pairs that are merged, the first to be merged first."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]
