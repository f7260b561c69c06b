"""Finish: what follows training. The run's network is exported, judged as it will be served, and described."""

from __future__ import annotations

from pathlib import Path

import torch
from brigantine.model import Model
from rich.console import Console

from .data import Data
from .export import write_manifest
from .families import family_of
from .family import Draws

__all__ = ["evaluate_model", "export_run", "finish_run", "write_evaluated"]


def finish_run(run_dir: Path, data: Data, console: Console, threads: int) -> None:
    """Export the run's network to RUN/model, judge the exported graph, write its scores and its card.

    Args:
        run_dir: a run with a checkpoint.
        data: what it was trained on.
        console: where progress and the report go.
        threads: CPU threads for judging.
    """
    torch.set_num_threads(threads)
    model = export_run(run_dir, data)
    worst = max(model.manifest.parity.values())
    console.print(f"exported to {model.path}, within {worst:.1g} of PyTorch", soft_wrap=True, highlight=False)
    write_evaluated(evaluate_model(model, data, console), data)


def export_run(run_dir: Path, data: Data, int8: bool = False) -> Model:
    """Export the run's averaged network to RUN/model, not judged yet; with `int8` one of 8-bit weights beside it.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
        DataError: it was trained on other data than `data`.
        ExportMismatch: the graph computes something else than the network.
    """
    return family_of(data.name).export(run_dir, data, int8)


def evaluate_model(model: Model, data: Data, console: Console, draws: Draws | None = None) -> Model:
    """Judge an exported model by what the service would return, and print the report.

    Returns:
        The model with the new scores in its manifest; nothing is written.

    Raises:
        ScoringError: it is no model of this kind.
        DataError: it was trained on other data than `data`.
    """
    return family_of(data.name).evaluate(model, data, console, draws or Draws())


def write_evaluated(model: Model, data: Data) -> None:
    """Write the manifest with its scores, and the card that shows them."""
    write_manifest(model.path, model.manifest)
    family_of(data.name).write_card(model)
