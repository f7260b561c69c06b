"""`brigantine`: serve, generate, and look after models and plugins."""

from __future__ import annotations

import asyncio
import io
import math
import mimetypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .adopt import adopt
from .adopt_text import adopt_text
from .drain import end_when_asked
from .engine import Engine, Generation
from .errors import BadParams, BrigantineError, FieldError
from .foreign import Choices
from .media import image
from .plugins_cli import app as plugins
from .preflight import CHECKED, preflight
from .registry import Registry
from .settings import Settings
from .store import publish as publish_model

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
models = typer.Typer(no_args_is_help=True, help="The models that can be served.")
app.add_typer(models, name="models")
app.add_typer(plugins, name="plugins")
console = Console(markup=False, highlight=False)  # names, paths and messages are not ours to interpret

_TYPES = mimetypes.MimeTypes()  # the same on every machine, and with what Python knows from 3.13 on
_TYPES.add_type("image/webp", ".webp")
_TYPES.add_type("audio/wav", ".wav")


def main() -> None:
    """The entry point: an error of ours is one line on stderr and exit code 1, not a traceback."""
    try:
        app()
    except BrigantineError as error:
        message = Text.assemble((error.code, "bold red"), f": {error}")
        Console(stderr=True, highlight=False).print(message, soft_wrap=True)
        sys.exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    plugins_dir: Annotated[
        Path | None, typer.Option(help="A folder of plugins: each file, or package, is one.")
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Start anew when a plugin in that folder changes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to start when anything is rejected.")
    ] = False,
) -> None:
    """Serve every model that can be found, with BentoML."""
    end_when_asked()
    chosen = {
        "BRIGANTINE_PLUGINS_DIR": str(plugins_dir.absolute()) if plugins_dir else "",
        "BRIGANTINE_DEV": "1" if dev else "",
        "BRIGANTINE_STRICT": "1" if strict else "",
    }
    os.environ.update({name: value for name, value in chosen.items() if value})
    preflight(host, port)
    os.environ[CHECKED] = str(os.getpid())
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    bentoml = [sys.executable, "-m", "bentoml", "serve", "brigantine.app:Brigantine"]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until `Brigantine.check` can heed it
    # Replaces this process, so that a signal to it is a signal to the service.
    os.execv(bentoml[0], [*bentoml, "--host", host, "--port", str(port)])


@app.command()
def generate(
    model: Annotated[str, typer.Option(help="The model's name; see `brigantine models list`.")] = "",
    n: Annotated[int, typer.Option(help="How many to make.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Absent: drawn and printed.")] = None,
    label: Annotated[
        str | None, typer.Option(help="A label's index or name, for models that have labels.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of its Params: key=value.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; many images go into one grid. Absent: out, with the suffix of its type."
        ),
    ] = None,
) -> None:
    """Generate without a server, through the same engine."""
    body: dict[str, Any] = {"n": n, "seed": seed} | dict(_assignment(text) for text in set_ or [])
    if label is not None:
        body["label"] = _value(label)
    if out is not None and not out.absolute().parent.is_dir():
        raise BadParams([FieldError("--out", "a file in a folder that exists", repr(str(out)))])
    settings = Settings.read()
    engine = Engine.start(settings, only=model or None)
    try:
        name = model or engine.registry.default("image", settings.default_model)
        types = engine.served(name).plugin.types
        out = out or Path(f"out{_TYPES.guess_extension(types[0]) or ''}")
        media_type = _media_type(out, types)
        generation = asyncio.run(engine.generate(name, body, media_type))
    finally:
        engine.close()
    _write(generation, out)
    console.print(f"{len(generation.media)} from {name}, seed {generation.seeds[0]}: {out}", soft_wrap=True)


@models.command("list")
def list_models() -> None:
    """Every model that can be found, with its scores; one that cannot be served says why."""
    table = Table("model", "content", "scores", "source", "state")
    registry = Registry.load(Settings.read())
    registry.close()
    for record in registry.models.values():
        scores = record.model.manifest.scores if record.model else {}
        table.add_row(
            record.name,
            record.plugin.content if record.plugin else "",
            "\n".join(f"{name} {score.value:.3f}" for name, score in scores.items()),
            record.source,
            record.state,
        )
    console.print(table)
    for record in registry.models.values():
        if record.reason:  # a cell of a table is too narrow for it
            console.print(f"{record.name} is {record.state}: {record.reason}", soft_wrap=True)


@models.command("publish")
def publish(
    run: Annotated[Path, typer.Argument(help="A training run, or a model's folder.")],
    name: Annotated[str, typer.Option(help="The name that it will be served under.")],
) -> None:
    """Put a model into BentoML's model store. The service lists it after its next start."""
    console.print(f"published {publish_model(run, name)}; it serves after the next start", soft_wrap=True)


@models.command("import")
def import_(
    graph: Annotated[Path, typer.Argument(help="An ONNX file, or a folder with a language model.")],
    *,
    plugin: Annotated[str, typer.Option(help="The plugin that will serve it: image or text.")],
    name: Annotated[str, typer.Option(help="The name to serve it under; absent: its own.")] = "",
    labels: Annotated[str, typer.Option(help="The names of its classes, in order: a,b,c.")] = "",
    classes: Annotated[int | None, typer.Option(min=1, max=65_536, help="Or how many it has.")] = None,
    value_range: Annotated[str, typer.Option("--range", help="Its values: -1..1, 0..1 or 0..255.")] = "",
    description: Annotated[str, typer.Option(help="What it makes.")] = "",
    latent_input: Annotated[str, typer.Option(help="The input that is the latent.")] = "",
    class_input: Annotated[str, typer.Option(help="The input that is the class.")] = "",
    output: Annotated[str, typer.Option(help="The output that is the picture.")] = "",
) -> None:
    """Make a model of a graph, or of a folder of Hugging Face's with a language model, try it, and publish it."""
    names = tuple(label.strip() for label in labels.split(",")) if labels else ()
    choices = Choices(name, names, classes, value_range, description, latent_input, class_input, output)
    adopted = adopt_text(graph, choices) if plugin == "text" else adopt(graph, plugin, choices)
    console.print(adopted.told, soft_wrap=True)
    for doubt in adopted.doubts:
        console.print(f"warning: {doubt}", soft_wrap=True)
    console.print(f"published {adopted.tag}; it serves after the next start", soft_wrap=True)
    if adopted.earlier:
        console.print(adopted.earlier, soft_wrap=True)


def _media_type(out: Path, made: Sequence[str]) -> str | None:
    """What the suffix of `out` asks for; None, the plugin's default, when it has none."""
    wanted, _ = _TYPES.guess_type(out.name)
    if out.suffix and wanted not in made:
        suffixes = ", ".join(filter(None, map(_TYPES.guess_extension, made)))
        raise BadParams([FieldError("--out", f"a name that ends in {suffixes}, or in none", repr(out.name))])
    return wanted


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadParams([FieldError("--set", "key=value", repr(text))])
    return key, _value(value)


def _value(text: str) -> Any:
    """A shell word as JSON has it; what is no JSON is text, so that only a text that looks like a number is quoted."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _write(generation: Generation, out: Path) -> None:
    """One medium as its bytes; many images as a grid, many of anything else as numbered files."""
    bodies = [media.body for media in generation.media]
    kind = generation.media[0].type
    if len(bodies) == 1:
        out.write_bytes(bodies[0])
    elif kind.startswith("image/"):
        grid = _grid([Image.open(io.BytesIO(body)) for body in bodies])
        pixels = np.atleast_3d(np.asarray(grid))  # uint8 [H, W, C]
        out.write_bytes(image(pixels, kind).body)
    else:
        for index, body in enumerate(bodies):
            out.with_stem(f"{out.stem}-{index}").write_bytes(body)


def _grid(images: list[Image.Image]) -> Image.Image:
    columns = math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    grid = Image.new(images[0].mode, (columns * width, math.ceil(len(images) / columns) * height))
    for index, picture in enumerate(images):
        grid.paste(picture, (index % columns * width, index // columns * height))
    return grid
