"""The command `brigantine-train`."""

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from brigantine.errors import BrigantineError
from rich.console import Console

from .config import RESUMABLE, Config, make_config, parse_setting, read_preset
from .errors import RunError, TrainingError
from .schedule import format_seconds, parse_seconds

_EXTRA = frozenset({
    "onnx", "onnxscript", "platformdirs", "safetensors", "tensorboard", "tokenizers", "tomli", "torch", "torchvision",
})  # fmt: skip
"""What the extra `train` brings."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a generator, judge it, export it.")


@app.command()
def run(
    preset: Annotated[str, typer.Argument(help="A preset's name, or a path ending in .toml.")],
    *,
    data_dir: Annotated[Path, typer.Option(help="The folder that holds the data set.")],
    out: Annotated[Path, typer.Option(help="The run's folder: new, or with --resume the one to go on with.")],
    budget: Annotated[str | None, typer.Option(help="Time to train in all, such as 90s, 10m, 1h30m.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train in all.", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; 0 decides by the machine.", min=0)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")] = None,
    evaluate: Annotated[bool, typer.Option(help="Export and judge the network at the end.")] = True,
) -> None:
    """Train PRESET to the end of its budget. Ctrl-C saves and says how to go on."""
    changes = dict(parse_setting(setting) for setting in settings or [])
    changes |= _budget_changes(budget, steps)
    if threads is not None:
        changes["threads"] = threads
    console = _console()
    config = make_config({**read_preset(preset), **changes}, f"preset {preset}")
    if resume:
        config = _resumed_config(out, config, changes)
    _train(config, data_dir, out, resume, console)
    if evaluate:
        _finish(config, data_dir, out, console)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data_dir: Annotated[Path, typer.Option(help="The folder that holds the data set.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="A text model of 8-bit weights, in RUN/model-int8.")
    ] = False,
) -> None:
    """Export RUN's averaged network to RUN/model: ONNX, manifest, card. `evaluate` adds the scores."""
    from .families import family_of
    from .finish import export_run
    from .run import read_config

    name = read_config(run).dataset
    model = export_run(run, family_of(name).open_data(name, data_dir), int8)
    _console().print(f"exported to {model.path}", soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model's folder, or a run with one in model/.")],
    data_dir: Annotated[Path, typer.Option(help="The folder that holds the data set it was trained on.")],
    write: Annotated[
        bool, typer.Option("--write", help="Put the scores into the manifest and the card.")
    ] = False,
    samples: Annotated[int | None, typer.Option(help="Images, or characters, of one draw.", min=100)] = None,
    resamples: Annotated[int, typer.Option(help="Draws; the interval is over them.", min=3, max=10)] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; on a busy machine 1 is fastest.", min=0)] = 0,
) -> None:
    """Judge MODEL by what the service would return."""
    import torch
    from brigantine.model import MANIFEST, Model

    from .families import family_of
    from .family import Draws
    from .finish import evaluate_model, write_evaluated
    from .provenance import Provenance
    from .runtime import Runtime, apply_runtime, default_threads

    # Float32 on the CPU wherever it runs, so that the same model gets the same scores.
    apply_runtime(Runtime(torch.device("cpu"), torch.float32, threads or default_threads()))
    opened = Model.open(model / "model" if (model / "model" / MANIFEST).is_file() else model)
    name = Provenance.read(opened.manifest).data.name
    data = family_of(name).open_data(name, data_dir)
    judged = evaluate_model(opened, data, _console(), Draws(samples, resamples))
    if write:
        write_evaluated(judged, data)


def _budget_changes(budget: str | None, steps: int | None) -> dict[str, Any]:
    """A budget of one kind replaces the preset's of the other kind; both together both count."""
    if budget is None and steps is None:
        return {}
    return {"budget_seconds": None if budget is None else parse_seconds(budget), "budget_steps": steps}


def _resumed_config(out: Path, asked: Config, changes: dict[str, Any]) -> Config:
    """The stored configuration with what the command line changes of it.

    Raises:
        RunError: the asked one would be another experiment.
    """
    from .run import read_config

    stored = read_config(out)
    differing = [
        f"{name} (was {getattr(stored, name)!r}, asked {getattr(asked, name)!r})"
        for name in type(stored).model_fields
        if name not in RESUMABLE and hasattr(asked, name) and getattr(stored, name) != getattr(asked, name)
    ]
    if differing:
        raise RunError(
            f"run folder {out}: cannot resume it as another experiment; it differs in {', '.join(differing)}. "
            f"Give the same preset and settings (only {', '.join(sorted(RESUMABLE))} may change), or another --out."
        )
    return stored.changed(**{name: value for name, value in changes.items() if name in RESUMABLE})


def _train(config: Config, data_dir: Path, out: Path, resume: bool, console: Console) -> None:
    """Train, and exit when a signal ended it before its budget."""
    # Imported here because torch takes seconds, and --help or a misspelt setting need none of it.
    from .families import family_of
    from .loop import Loop, Origin, StopSignal
    from .progress import TrainingProgress
    from .run import RunFolder, read_checkpoint, read_record
    from .runtime import apply_runtime, choose_runtime
    from .schedule import Budget

    earlier = read_record(out) if resume else None
    # A run stays in the number format that it began with: another machine may choose another one.
    runtime = choose_runtime(config.changed(precision=earlier.precision) if earlier else config)
    apply_runtime(runtime)
    family = family_of(config.dataset)
    dataset = family.open_data(config.dataset, data_dir)
    checkpoint = None
    if earlier:
        checkpoint = read_checkpoint(out)
        dataset.check_is(earlier.dataset_sha256, str(out))
        spent = (checkpoint["seconds"], checkpoint["trainer"]["steps"])
        if Budget(config.budget_seconds, config.budget_steps).progress(*spent) >= 1:
            raise RunError(
                f"run folder {out}: its budget is spent ({format_seconds(spent[0])}, {spent[1]} steps). Give a larger "
                "one in all, such as --budget 20m; the schedule is planned anew over it. To judge what is there, run "
                "`brigantine-train export` on the folder and `brigantine-train evaluate --write` on the model in it."
            )
        folder = RunFolder.resume(out, config, last_step=checkpoint["trainer"]["steps"])
    else:
        folder = RunFolder.create(out, config)
    console.print(f"{out}: {family.describe(config)} on {runtime.name}, {runtime.dtype}", soft_wrap=True)
    command = shlex.join(["brigantine-train", *sys.argv[1:]])
    origin = Origin(config, dataset, runtime, command, earlier)
    with StopSignal() as stop, TrainingProgress(console) as shown:
        trainer = family.trainer(config, dataset, runtime)
        done = Loop(trainer, origin, folder, shown, checkpoint).train(stop)
    folder.close()
    if not done:
        again = command if resume else f"{command} --resume"
        console.print(f"stopped and saved. To go on:\n  {again}", soft_wrap=True)
    elif stop.received:
        console.print(f"trained and saved. {_how_to_judge(out, data_dir)}", soft_wrap=True)
    if stop.received:
        raise typer.Exit(128 + stop.received)


def _finish(config: Config, data_dir: Path, out: Path, console: Console) -> None:
    from .families import family_of
    from .finish import finish_run
    from .runtime import choose_runtime

    data = family_of(config.dataset).open_data(config.dataset, data_dir)
    try:
        finish_run(out, data, console, choose_runtime(config).threads)
    except KeyboardInterrupt:
        console.print(f"trained, and not judged. {_how_to_judge(out, data_dir)}", soft_wrap=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    console.print(
        f"To serve it:\n  brigantine models publish {shlex.quote(str(out))} --name NAME", soft_wrap=True
    )


def _how_to_judge(out: Path, data_dir: Path) -> str:
    data, run, model = (shlex.quote(str(path)) for path in (data_dir, out, out / "model"))
    return (
        f"To judge it:\n  brigantine-train export {run} --data-dir {data}\n"
        f"  brigantine-train evaluate {model} --data-dir {data} --write"
    )


def _console() -> Console:
    """Paths and commands are printed as they are."""
    return Console(markup=False, highlight=False)


def main() -> None:
    """The entry point: a mistake that the user can mend ends in its message and exit status 2."""
    try:
        app()
    except (BrigantineError, TrainingError) as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        _refuse(f"training needs {error.name}, which serving does without: pip install 'brigantine[train]'")


def _refuse(message: str) -> None:
    Console(stderr=True).print(f"error: {message}", soft_wrap=True, highlight=False, markup=False)
    sys.exit(2)


if __name__ == "__main__":
    main()
