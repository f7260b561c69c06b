"""The family of GANs: from a run to a model that draws images, judged as it will be served."""

from __future__ import annotations

from pathlib import Path

from brigantine.model import Model
from rich.console import Console

from .card import write_card
from .config import GanConfig
from .data import Dataset, open_dataset
from .errors import ConfigError
from .evaluate import SAMPLES, Judge, ServedSampler, open_judge, print_report, score_sampler
from .evaluate.prdc import NEIGHBOURS
from .export import Facts, export_model, label_of
from .family import Draws, Family
from .networks import Generator, build_generator
from .provenance import GanProvenance, Protocol
from .run import MODEL_FOLDER, read_checkpoint, read_config, read_record
from .trainer import GanTrainer

__all__ = ["GAN", "load_generator"]


def load_generator(run_dir: Path) -> tuple[Generator, GanConfig]:
    """The averaged generator of a run, ready to draw on the CPU, and the run's configuration.

    Raises:
        RunError: no run in `run_dir`, no checkpoint yet, or a damaged one.
    """
    config = read_config(run_dir)
    assert isinstance(config, GanConfig)
    state = read_checkpoint(run_dir)
    generator = build_generator(config, state["classes"], tuple(state["image_shape"]))
    generator.load_state_dict(state["trainer"]["ema"]["generator"])
    return generator.eval().requires_grad_(False), config


def _export(run_dir: Path, dataset: Dataset, int8: bool) -> Model:
    """Export the run's averaged generator to RUN/model, not judged yet.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
        DataError: it was trained on other data than `dataset`.
        ExportMismatch: the graph draws other images than the network.
        ConfigError: `int8` is asked for.
    """
    if int8:
        raise ConfigError(
            "--int8: only language models have an export with 8-bit weights; it makes images slower."
        )
    generator, config = load_generator(run_dir)
    record = read_record(run_dir)
    dataset.check_is(record.dataset_sha256, str(run_dir))
    provenance = GanProvenance.of(record, config, dataset, images=len(dataset.train_images))
    labels = tuple(map(label_of, dataset.labels))
    facts = Facts(
        name=dataset.name,
        description=(
            f"Draws images like those of {dataset.name}, by label: {', '.join(n.name for n in labels)}. Generator "
            f"{config.generator}, trained against the discriminator {config.discriminator} with the {config.loss} loss."
        ),
        licence=dataset.licence,
        labels=labels,
        training=provenance.model_dump(mode="json"),
    )
    model = export_model(generator, run_dir / MODEL_FOLDER, facts)
    write_card(model)
    return model


def _evaluate(model: Model, dataset: Dataset, console: Console, draws: Draws) -> Model:
    """Judge an exported model by the images that the service would return, and print the report.

    Returns:
        The model with the new scores in its manifest; nothing is written.

    Raises:
        ScoringError: it is no image model.
        DataError: it was trained on other data than `dataset`.
    """
    provenance = GanProvenance.read(model.manifest)
    dataset.check_is(provenance.data.sha256, str(model.path))
    sampler = ServedSampler(model)
    judge = open_judge(dataset, console, draws.samples or SAMPLES)
    scores = score_sampler(sampler, judge, console, draws.resamples)
    print_report(f"{model.name}: {draws.resamples} draws of {judge.samples:,} images", scores, console)
    judged = provenance.model_copy(update={"evaluation": _protocol(judge, draws.resamples)})
    changes = {"scores": scores, "training": judged.model_dump(mode="json")}
    return model._replace(manifest=model.manifest.model_copy(update=changes))


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


def _describe(config: GanConfig) -> str:
    return f"{config.generator} and {config.discriminator}"


GAN: Family[GanConfig, Dataset] = Family(
    open_data=open_dataset,
    describe=_describe,
    trainer=GanTrainer,
    export=_export,
    evaluate=_evaluate,
    write_card=write_card,
)
