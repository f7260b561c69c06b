"""The model card: README.md and samples.png beside a model, made from its manifest alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from brigantine.model import Manifest, Model, Score
from PIL import Image
from torch import Tensor

from .evaluate import MEASURES, Measure, ServedSampler
from .evaluate.report import cells
from .files import replacing
from .provenance import GanProvenance, Protocol, Provenance

__all__ = [
    "CARD",
    "NOT_JUDGED",
    "SAMPLES_PICTURE",
    "card_text",
    "meanings",
    "score_table",
    "table",
    "tensor_table",
    "training_section",
    "write_card",
]

CARD = "README.md"
SAMPLES_PICTURE = "samples.png"
NOT_JUDGED = "## Scores\n\nNot judged yet: run `brigantine-train evaluate` on this folder with `--write`."

_ROWS, _COLUMNS = 10, 10
_GAP = 2  # pixels between two images
_ZOOM = 2  # each pixel becomes a square of so many: 28 pixels are too small to judge by eye
_SEED = 0


def write_card(model: Model) -> None:
    """Write README.md and samples.png into the model's folder.

    Raises:
        ScoringError: it is no image model.
    """
    write_samples(model, model.path / SAMPLES_PICTURE)
    with replacing(model.path / CARD) as file:
        file.write_text(card_text(model.manifest), encoding="utf-8")


def write_samples(model: Model, path: Path) -> None:
    """A grid of images drawn by the model, not picked: a label in each row, the first ten."""
    rows = min(len(model.manifest.labels) or _ROWS, _ROWS)
    labels = torch.arange(rows).repeat_interleave(_COLUMNS)  # int64 [rows * columns]
    grid = _grid(ServedSampler(model)(labels, _SEED), rows)
    picture = Image.fromarray(grid.squeeze(2).numpy() if grid.shape[2] == 1 else grid.numpy())
    size = picture.width * _ZOOM, picture.height * _ZOOM
    with replacing(path) as file:
        picture.resize(size, Image.Resampling.NEAREST).save(file, "PNG", optimize=True)


def _grid(images: Tensor, rows: int) -> Tensor:
    """Images uint8 [rows * columns, C, H, W] side by side, grey between: uint8 [height, width, C]."""
    _, channels, height, width = images.shape
    cells = torch.full((rows, _COLUMNS, channels, height + _GAP, width + _GAP), 128, dtype=torch.uint8)
    cells[..., _GAP:, _GAP:] = images.unflatten(0, (rows, _COLUMNS))
    return cells.permute(0, 3, 1, 4, 2).reshape(rows * (height + _GAP), _COLUMNS * (width + _GAP), channels)


def card_text(manifest: Manifest) -> str:
    """The card as Markdown.

    Raises:
        ScoringError: the manifest does not say how the model was trained.
    """
    provenance = GanProvenance.read(manifest)
    sections = [
        f"# Model card\n\n{manifest.description}",
        f"![a grid of samples]({SAMPLES_PICTURE})\n\nNot picked: one label in each row, seed {_SEED}.",
        _scores(manifest.scores, provenance.evaluation),
        _training(provenance),
        _graph(manifest),
        _use(provenance),
    ]
    return "\n\n".join(sections) + "\n"


def _scores(scores: Mapping[str, Score], protocol: Protocol | None) -> str:
    if not scores or protocol is None:
        return NOT_JUDGED
    scored = score_table(scores, MEASURES, "images")
    return f"## Scores\n\n{scored}\n\n{_described(protocol)}\n\n{meanings(scores, MEASURES)}"


def score_table(scores: Mapping[str, Score], measures: Mapping[str, Measure], counted: str) -> str:
    """The scores beside what real data scores; `counted`: what a draw holds."""
    return table(
        ("score", "better", "value", "95% interval", "real data", counted),
        [(measures[name].title, measures[name].better, *cells(score)) for name, score in scores.items()],
    )


def meanings(scores: Mapping[str, Score], measures: Mapping[str, Measure]) -> str:
    """What each score means, as a list."""
    return "\n".join(_meaning(measures[name]) for name in scores)


def _meaning(measure: Measure) -> str:
    source = f" ({measure.paper})" if measure.paper else ""
    return f"- **{measure.title}**: {measure.meaning}{source}."


def _described(protocol: Protocol) -> str:
    return (
        "Measured on the images that the service returns: the exported graph, uint8. Each value is the mean over "
        f"{protocol.resamples} draws of {protocol.samples:,} images, with labels as frequent as in the training set; "
        "its interval is by Student's t. *Real data* is what as many test images score, which the generator never "
        f"saw. Compared with {protocol.fid_reference:,} training images for FID, {protocol.prdc_reference:,} of them "
        f"for precision, recall, density and coverage (k = {protocol.neighbours}), and "
        f"{protocol.memorisation_reference:,} for memorisation. The classifier, `{protocol.classifier}`, reads "
        f"{protocol.classifier_accuracy:.2%} of the test images right."
    )


def _training(provenance: GanProvenance) -> str:
    return training_section(
        provenance,
        seen=f"{provenance.data.images:,} images",
        steps=f"{provenance.images_seen:,} images",
        parameters=f"{provenance.parameters_generator:,} (discriminator {provenance.parameters_discriminator:,})",
    )


def training_section(provenance: Provenance, seen: str, steps: str, parameters: str) -> str:
    """How the model was made; `seen`: how much data there is, `steps`: how much of it the steps saw in all."""
    data = provenance.data
    facts = [
        ("data", f"{data.name}, {seen}, {data.source}"),
        ("licence of the data", data.licence),
        ("sha256 of the data", f"`{data.sha256}`"),
        ("time", f"{provenance.seconds / 60:.1f} minutes on {provenance.device}, {provenance.precision}"),
        ("steps", f"{provenance.steps:,} ({steps})"),
        ("parameters", parameters),
        ("seed", str(provenance.seed)),
        ("commit", f"`{provenance.commit}`"),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions.items())),
    ]
    config = "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in provenance.config.items() if value is not None
    )
    return f"## Training\n\n```sh\n{provenance.command}\n```\n\n{table(('', ''), facts)}\n\n```toml\n{config}\n```"


def _graph(manifest: Manifest) -> str:
    names = (" or ".join((label.name, *label.aliases)) for label in manifest.labels)
    labels = ", ".join(f"{index} = {name}" for index, name in enumerate(names))
    parity = ", ".join(f"{error:.1g} at batch {batch}" for batch, error in manifest.parity.items())
    return (
        f"## Graph\n\n{tensor_table(manifest)}\n\n"
        f"`z` is standard normal. Labels: {labels}. Largest difference between PyTorch and ONNX Runtime, in an "
        f"image from -1 to 1 before it is rounded: {parity}."
    )


def tensor_table(manifest: Manifest) -> str:
    """The inputs and outputs of the graph."""
    tensors = [
        (kind, f"`{spec.name}`", spec.dtype, f"[{', '.join(map(str, spec.shape))}]")
        for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs))
        for spec in specs
    ]
    return table(("", "tensor", "type", "shape"), tensors)


def _use(provenance: GanProvenance) -> str:
    data = provenance.data
    return (
        "## Use and limits\n\n"
        "For demonstrations, tests and teaching. It draws only what its training data shows, in its style and size, "
        "and knows nothing else; some images are malformed or read as another label (see class accuracy). Do not use "
        "its images in place of real ones where that matters, as evidence or to measure a recogniser. Before you "
        f"share the weights or the images, read the licence of {data.name}: {data.licence}."
    )


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under a head, as Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
