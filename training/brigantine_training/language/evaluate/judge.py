"""Judge: an exported language model gets its scores."""

from __future__ import annotations

import torch
from brigantine.model import Model
from rich.console import Console

from ...evaluate import print_report
from ...family import Draws
from ..corpus import Corpus
from ..provenance import LanguageProvenance, TextProtocol
from .measures import LANGUAGE_MEASURES
from .references import reference_bits
from .scores import CHARACTERS, score_writer
from .writer import Writer

__all__ = ["evaluate_language"]


def evaluate_language(model: Model, corpus: Corpus, console: Console, draws: Draws) -> Model:
    """Judge an exported language model on the held-out text and by what it writes, and print the report.

    Returns:
        The model with the new scores in its manifest; nothing is written.

    Raises:
        ScoringError: it is no text model.
        DataError: it was trained on other data than `corpus`.
    """
    provenance = LanguageProvenance.read(model.manifest)
    corpus.check_is(provenance.data.sha256, str(model.path))
    writer = Writer(model, torch.get_num_threads())
    characters = min(draws.samples or CHARACTERS, len(corpus.test_text))
    scores = score_writer(writer, corpus, console, characters, draws.resamples)
    with console.status("measuring what simpler models need"):
        references = reference_bits(corpus.train_text, corpus.test_text)
    title = f"{model.name}: {draws.resamples} draws of {characters:,} characters"
    print_report(title, scores, console, LANGUAGE_MEASURES)
    for name, bits in references.items():
        console.print(f"{bits:.3f} bits per character: {name}", highlight=False)
    protocol = TextProtocol(
        context_tokens=writer.context,
        test_tokens=len(writer.tokenizer.encode(corpus.test_text).ids),
        characters=characters,
        resamples=draws.resamples,
        piece_tokens=writer.context - 1,
        references={name: round(bits, 5) for name, bits in references.items()},
    )
    judged = provenance.model_copy(update={"evaluation": protocol})
    changes = {"scores": scores, "training": judged.model_dump(mode="json")}
    return model._replace(manifest=model.manifest.model_copy(update=changes))
