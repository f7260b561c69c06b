"""The model card of a language model: README.md beside it, made from its manifest and of what it writes."""

from __future__ import annotations

from collections.abc import Mapping

from brigantine.model import Manifest, Model, Score

from ..card import CARD, NOT_JUDGED, meanings, score_table, table, tensor_table, training_section
from ..files import replacing
from .evaluate import LANGUAGE_MEASURES, Writer
from .provenance import LanguageProvenance, TextProtocol

__all__ = ["card_text", "write_card"]

_SEED = 0
_CHARACTERS = 1200


def write_card(model: Model) -> None:
    """Write README.md into the model's folder.

    Raises:
        ScoringError: it is no text model.
    """
    sample = "\n\n[...]\n\n".join(piece.strip() for piece in Writer(model).write(_CHARACTERS, _SEED))
    with replacing(model.path / CARD) as file:
        file.write_text(card_text(model.manifest, sample), encoding="utf-8")


def card_text(manifest: Manifest, sample: str) -> str:
    """The card as Markdown; `sample`: what the model wrote.

    Raises:
        ScoringError: the manifest does not say how the model was trained.
    """
    provenance = LanguageProvenance.read(manifest)
    data = provenance.data
    training = training_section(
        provenance,
        seen=f"{data.train_characters:,} characters, and {data.test_characters:,} held out",
        steps=f"{provenance.tokens_seen:,} tokens",
        parameters=f"{provenance.parameters:,}",
    )
    sections = [
        f"# Model card\n\n{manifest.description}",
        f"```text\n{sample}\n```\n\nNot picked: written from nothing with seed {_SEED}, temperature 1, every token "
        "open; each piece ends with the context.",
        _scores(manifest.scores, provenance.evaluation),
        training,
        _graph(manifest),
        _use(provenance),
    ]
    return "\n\n".join(sections) + "\n"


def _scores(scores: Mapping[str, Score], protocol: TextProtocol | None) -> str:
    if not scores or protocol is None:
        return NOT_JUDGED
    references = table(
        ("the same text under", "bits per character"),
        [(name, f"{bits:.3f}") for name, bits in protocol.references.items()],
    )
    return (
        f"## Scores\n\n{score_table(scores, LANGUAGE_MEASURES, 'characters')}\n\n{_described(protocol)}\n\n{references}"
        f"\n\n{meanings(scores, LANGUAGE_MEASURES)}"
    )


def _described(protocol: TextProtocol) -> str:
    return (
        "Measured on the exported graph. Bits per character: the whole held-out text, "
        f"{protocol.test_tokens:,} tokens, each read once in windows of {protocol.context_tokens} that do not overlap; "
        "the interval is a bootstrap over these windows. All others: the mean over "
        f"{protocol.resamples} draws of {protocol.characters:,} characters in pieces of {protocol.piece_tokens} "
        "tokens, written from nothing at temperature 1 with every token open; the interval is by Student's t. *Real "
        "data* is what as much of the held-out text scores, cut into pieces of the same lengths."
    )


def _graph(manifest: Manifest) -> str:
    parity = max(manifest.parity.values())
    return (
        f"## Graph\n\n{tensor_table(manifest)}\n\nOne graph for a prompt and for each token after it: keys and values "
        "of what was read come in as `past_key_values` and go out, longer, as `present`; a past of 0 begins a text. "
        f"Names and shapes are those of onnxruntime-genai. Largest difference to PyTorch in a logit over "
        f"{len(manifest.parity)} shapes (batch x sequence + past: {', '.join(manifest.parity)}): {parity:.1g}."
    )


def _use(provenance: LanguageProvenance) -> str:
    data = provenance.data
    return (
        "## Use and limits\n\n"
        f"For demonstrations, tests and teaching. It has read {data.train_characters:,} characters and nothing else: "
        "it knows the sound of that text, not the world, follows no instruction, and what it writes means little and "
        "may repeat spans of its training text (see the longest copy). It was trained on windows of "
        f"{provenance.config.get('context_tokens')} tokens and is served with as many. Bytes that the training text "
        "does not hold can be read and written, but were never learned. Before you share the weights or the texts, "
        f"read the licence of {data.name}: {data.licence}."
    )
