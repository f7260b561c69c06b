"""The folder of one training run: what it was asked, what it said on the way, and where it stands."""

import json
import math
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from .config import Config, make_config
from .errors import RunError
from .files import replacing
from .torchvision_guard import utils

CONFIG, LOG, RECORD, CHECKPOINT = "config.json", "log.jsonl", "run.json", "checkpoint.pt"
MODEL_FOLDER = "model"
"""Where in a run its model is written."""


@dataclass(frozen=True)
class LogLine:
    """One line of log.jsonl: where the run stands, with means since the line before."""

    step: int
    seconds: float
    progress: float
    """Share of the budget that is spent, 0..1."""
    figures: dict[str, float]
    """What this kind of training measures, by name: losses, rates, speed."""
    words: str = ""
    """The same for somebody who looks on; not written."""

    def values(self) -> dict[str, float]:
        """What is written: flat, by name."""
        return {"step": self.step, "seconds": self.seconds, "progress": self.progress, **self.figures}


@dataclass(frozen=True)
class RunRecord:
    """run.json: how this run came about and what it has used so far."""

    command: str
    """The command line; of a resumed run all of them, one a line."""
    seconds: float
    steps: int
    commit: str
    versions: dict[str, str]
    """Of Python, of the libraries that compute, and of brigantine."""
    seed: int
    device: str
    precision: str
    threads: int
    dataset: str
    dataset_sha256: str
    counts: dict[str, int]
    """What this kind of training counts, by name: what it has seen, parameters."""

    def values(self) -> dict[str, Any]:
        """What is written: flat, by name."""
        return {name: value for name, value in asdict(self).items() if name != "counts"} | self.counts

    @classmethod
    def of(cls, values: dict[str, Any]) -> "RunRecord":
        """From what was written."""
        own = {field.name for field in fields(cls)} - {"counts"}
        counts = {name: value for name, value in values.items() if name not in own}
        return cls(**{name: values[name] for name in own}, counts=counts)


_LEFT_BY_A_FAILED_START = frozenset({CONFIG, "tensorboard"})


class RunFolder:
    """Reads and writes one run. Made by `create` or `resume`."""

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self._board = SummaryWriter(str(path / "tensorboard"), purge_step=last_step + 1)

    @classmethod
    def create(cls, path: Path, config: Config) -> "RunFolder":
        """A new run in a folder that is absent or empty.

        Raises:
            RunError: there is something in it already.
        """
        there = {entry.name for entry in path.iterdir()} if path.is_dir() else set[str]()
        if path.is_file() or there - _LEFT_BY_A_FAILED_START:
            resume = (
                "Add --resume to go on with the run that is in it, or give" if CHECKPOINT in there else "Give"
            )
            raise RunError(
                f"run folder {path}: expected none, or an empty one, and it has content. {resume} another --out."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"run folder {path}: cannot be made: {error}. Give another --out.") from None
        _write_config(path, config)
        return cls(path, last_step=0)

    @classmethod
    def resume(cls, path: Path, config: Config, last_step: int) -> "RunFolder":
        """The run in `path`, its log cut back to `last_step`, the step of the checkpoint that is gone on from.

        `config` replaces the stored one, so that a new budget holds for the next resumption too.
        """
        _write_config(path, config)
        log = path / LOG
        if log.is_file():
            lines = [line for line in log.read_text().splitlines(True) if _step_of(line) <= last_step]
            with replacing(log) as file:
                file.write_text("".join(lines))
        return cls(path, last_step)

    def write_log(self, line: LogLine) -> None:
        """Append to log.jsonl and to TensorBoard."""
        values = line.values()
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        for name, value in values.items():
            if name != "step":
                self._board.add_scalar(name, value, line.step)

    def write_samples(self, samples: Tensor | str, step: int) -> Path:
        """Images [N, C, H, W], 0..1, as samples-<step>.png, ten in a row, or a text as .txt; and in TensorBoard."""
        if isinstance(samples, str):
            path = self.path / f"samples-{step:07d}.txt"
            path.write_text(samples, encoding="utf-8")
            self._board.add_text("samples", f"```\n{samples}\n```", step)
            return path
        grid = utils.make_grid(samples, nrow=10, padding=2, pad_value=0.5)  # [3, h, w]
        path = self.path / f"samples-{step:07d}.png"
        utils.save_image(grid, path)
        self._board.add_image("samples", grid, step)
        return path

    def write_checkpoint(self, state: dict[str, Any], record: RunRecord) -> None:
        """Put `state` and `record` in place of the last ones; a crash half-way leaves those as they were."""
        with replacing(self.path / CHECKPOINT) as file:
            torch.save(state, file)
        with replacing(self.path / RECORD) as file:
            file.write_text(json.dumps(record.values(), indent=2) + "\n")

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        self._board.close()


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite for one that was cut off while it was written."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf


def _write_config(path: Path, config: Config) -> None:
    with replacing(path / CONFIG) as file:
        file.write_text(config.model_dump_json(indent=2) + "\n")


def read_config(path: Path) -> Config:
    """The configuration of the run in `path`.

    Raises:
        RunError: there is no run in it.
    """
    file = path / CONFIG
    if not file.is_file():
        raise RunError(f"run folder {path}: expected a run, and there is no {CONFIG} in it. Check the path.")
    return make_config(json.loads(file.read_text()), str(file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The last checkpoint of the run in `path`, on the CPU.

    Raises:
        RunError: there is none yet, or it is damaged.
    """
    file = path / CHECKPOINT
    if not file.is_file():
        raise RunError(
            f"run folder {path}: no {CHECKPOINT} in it yet. Start the run again in another folder."
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"checkpoint {file}: damaged, cannot be read: {error}") from error


def read_record(path: Path) -> RunRecord:
    """run.json of the run in `path`.

    Raises:
        RunError: there is none yet.
    """
    file = path / RECORD
    if not file.is_file():
        raise RunError(
            f"run folder {path}: no {RECORD} in it yet; it is written with the first checkpoint. Start the run again "
            "in another folder."
        )
    return RunRecord.of(json.loads(file.read_text()))


def versions() -> dict[str, str]:
    """What this process runs on, by name."""
    return {
        "python": platform.python_version(),
        **dict(_installed("brigantine", "tokenizers", "torch", "torchvision")),
    }


def _installed(*names: str) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def commit() -> str:
    """The commit of the checkout that this package runs from, "-dirty" when the package differs from it.

    "unknown" outside of a checkout, also where the package is installed into somebody else's.
    """
    file = Path(__file__).resolve()
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        changed = _git(file.parent, "status", "--porcelain", "--", ".")
        return _git(file.parent, "rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
