"""Finish: what follows training. The run's generator is exported, judged as it will be served, and described."""

from __future__ import annotations

from pathlib import Path

import torch
from brigantine.model import Model
from rich.console import Console

from .card import write_card
from .data import Dataset
from .evaluate import RESAMPLES, SAMPLES, Judge, ServedSampler, open_judge, print_report, score_sampler
from .evaluate.prdc import NEIGHBOURS
from .export import Facts, export_model, label_of, write_manifest
from .provenance import Protocol, Provenance
from .run import load_generator, read_record

__all__ = ["MODEL_FOLDER", "evaluate_model", "export_run", "finish_run", "write_evaluated"]

MODEL_FOLDER = "model"
"""Where in a run its model is written."""


def finish_run(run_dir: Path, dataset: Dataset, console: Console, threads: int) -> None:
    """Export the run's generator to RUN/model, judge the exported graph, write its scores and its card.

    Args:
        run_dir: a run with a checkpoint.
        dataset: what it was trained on.
        console: where progress and the report go.
        threads: CPU threads for judging.
    """
    torch.set_num_threads(threads)
    model = export_run(run_dir, dataset)
    worst = max(model.manifest.parity.values())
    console.print(f"exported to {model.path}, within {worst:.1g} of PyTorch", soft_wrap=True, highlight=False)
    write_evaluated(evaluate_model(model, dataset, console))


def export_run(run_dir: Path, dataset: Dataset) -> Model:
    """Export the run's averaged generator to RUN/model, not judged yet.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
        DataError: it was trained on other data than `dataset`.
        ExportMismatch: the graph draws other images than the network.
    """
    generator, config = load_generator(run_dir)
    record = read_record(run_dir)
    dataset.check_is(record.dataset_sha256, str(run_dir))
    labels = tuple(map(label_of, dataset.labels))
    facts = Facts(
        name=dataset.name,
        description=(
            f"Draws images like those of {dataset.name}, by label: {', '.join(n.name for n in labels)}. Generator "
            f"{config.generator}, trained against the discriminator {config.discriminator} with the {config.loss} loss."
        ),
        licence=dataset.licence,
        labels=labels,
        training=Provenance.of(record, config, dataset).model_dump(mode="json"),
    )
    model = export_model(generator, run_dir / MODEL_FOLDER, facts)
    write_card(model)
    return model


def evaluate_model(
    model: Model,
    dataset: Dataset,
    console: Console,
    samples: int = SAMPLES,
    resamples: int = RESAMPLES,
) -> Model:
    """Judge an exported model by the images that the service would return, and print the report.

    Returns:
        The model with the new scores in its manifest; nothing is written.

    Raises:
        ScoringError: it is no image model.
        DataError: it was trained on other data than `dataset`.
    """
    provenance = Provenance.read(model.manifest)
    dataset.check_is(provenance.data.sha256, str(model.path))
    sampler = ServedSampler(model)
    judge = open_judge(dataset, console, samples)
    scores = score_sampler(sampler, judge, console, resamples)
    print_report(f"{model.name}: {resamples} draws of {judge.samples:,} images", scores, console)
    judged = provenance.model_copy(update={"evaluation": _protocol(judge, resamples)})
    changes = {"scores": scores, "training": judged.model_dump(mode="json")}
    return model._replace(manifest=model.manifest.model_copy(update=changes))


def write_evaluated(model: Model) -> None:
    """Write the manifest with its scores, and the card that shows them."""
    write_manifest(model.path, model.manifest)
    write_card(model)


def _protocol(judge: Judge, resamples: int) -> Protocol:
    return Protocol(
        samples=judge.samples,
        resamples=resamples,
        fid_reference=len(judge.dataset.train_images),
        prdc_reference=len(judge.reference.points),
        memorisation_reference=len(judge.dataset.train_images),
        neighbours=NEIGHBOURS,
        classifier=judge.recipe.key(judge.dataset),
        classifier_accuracy=judge.floors["accuracy"],
    )
