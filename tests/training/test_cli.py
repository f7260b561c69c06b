"""The command line, in this process and as one that a signal reaches."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brigantine_training import cli, finish, runtime
from brigantine_training.config import Config
from brigantine_training.errors import ConfigError, DataError, RunError
from brigantine_training.gan import load_generator
from brigantine_training.run import read_config, read_record
from typer.testing import CliRunner

from tests.training.digits import write_idx

TINY = ["generator_width=1", "discriminator_width=1", "z_dim=4", "batch_images=4", "device=cpu", "threads=1"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_idx(tmp_path / "data")
    return tmp_path / "data"


def _arguments(data_dir: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["run", "mnist", "--data-dir", str(data_dir), "--out", str(out), "--no-evaluate", *settings, *more]


def _run(data_dir: Path, out: Path, *more: str) -> str:
    return CliRunner().invoke(cli.app, _arguments(data_dir, out, *more), catch_exceptions=False).output


def test_a_run_by_steps_and_its_resumption_with_more(data_dir: Path, tmp_path: Path):
    out = tmp_path / "run"
    said = _run(data_dir, out, "--steps", "3")
    assert "dcgan and residual on cpu" in said
    assert "step 3" in said
    with pytest.raises(RunError, match="Add --resume to go on"):
        _run(data_dir, out, "--steps", "3")
    with pytest.raises(RunError, match=r"its budget is spent .*--budget 20m"):
        _run(data_dir, out, "--resume")
    _run(data_dir, out, "--resume", "--steps", "5")
    assert read_record(out).steps == 5
    assert read_record(out).command.count("\n") == 1
    assert read_config(out).budget_steps == 5
    generator, config = load_generator(out)
    assert (generator.z_dim, generator.image_shape, config.dataset) == (4, (1, 28, 28), "mnist")


def test_a_run_is_not_resumed_as_another_experiment(data_dir: Path, tmp_path: Path):
    _run(data_dir, tmp_path / "run", "--steps", "1")
    with pytest.raises(RunError, match=r"gamma_start \(was 0\.1, asked 1\.0\)"):
        _run(data_dir, tmp_path / "run", "--resume", "--steps", "2", "--set", "gamma_start=1")


def test_a_run_is_not_resumed_with_other_data(data_dir: Path, tmp_path: Path):
    _run(data_dir, tmp_path / "run", "--steps", "1")
    labels = data_dir / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x05")
    with pytest.raises(DataError, match="give the folder that it was trained on"):
        _run(data_dir, tmp_path / "run", "--resume", "--steps", "2")


@pytest.mark.parametrize("fast", [False, True])
def test_a_run_is_resumed_in_the_number_format_that_it_began_with(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
):
    monkeypatch.setattr(runtime, "_cpu_multiplies_bfloat16", lambda: fast)
    _run(data_dir, tmp_path / "run", "--steps", "1")
    began = read_record(tmp_path / "run")
    monkeypatch.setattr(runtime, "_cpu_multiplies_bfloat16", lambda: not fast)
    _run(data_dir, tmp_path / "run", "--resume", "--steps", "2", "--threads", "2")
    resumed = read_record(tmp_path / "run")
    assert resumed.precision == began.precision == ("bfloat16" if fast else "float32")
    assert re.fullmatch(r"cpu \(.*, 1 threads\), then cpu \(.*, 2 threads\)", resumed.device)


def test_names_with_brackets_are_printed_as_they_are(data_dir: Path, tmp_path: Path):
    assert f"{tmp_path}/[bold]/[/x]: dcgan" in _run(data_dir, tmp_path / "[bold]" / "[/x]", "--steps", "1")


def test_ctrl_c_while_judging_says_how_to_go_on(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "finish_run", interrupted)
    arguments = [
        word for word in _arguments(data_dir, tmp_path / "run", "--steps", "1") if word != "--no-evaluate"
    ]
    ended = CliRunner().invoke(cli.app, arguments)
    assert ended.exit_code == 130
    assert f"trained, and not judged. To judge it:\n  brigantine-train export {tmp_path}/run" in ended.output
    assert read_record(tmp_path / "run").steps == 1


def test_nothing_is_made_for_a_setting_that_is_unknown(data_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="Did you mean 'batch_images'"):
        _run(data_dir, tmp_path / "run", "--set", "batch_image=8")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("budget", "steps", "expected"),
    [
        (None, None, {}),
        ("10m", None, {"budget_seconds": 600.0, "budget_steps": None}),
        (None, 5, {"budget_seconds": None, "budget_steps": 5}),
        ("10m", 5, {"budget_seconds": 600.0, "budget_steps": 5}),
    ],
)
def test_a_budget_replaces_the_presets(budget: str | None, steps: int | None, expected: dict):
    changes = cli._budget_changes(budget, steps)
    assert changes == expected
    assert set(changes) <= set(Config.model_fields)


def test_a_mistake_is_one_line_without_a_traceback_and_without_waiting_for_torch(tmp_path: Path):
    arguments = ["run", "mnits", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-X", "importtime", "-m", "brigantine_training.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    known = "mnist, mnist-dcgan, mnist-mlp, shakespeare"
    assert said == [f"error: preset 'mnits': no such preset. Known: {known}; or give a path ending in .toml."]
    assert not re.search(r"\| +torch$", done.stderr, re.M)


def test_sigterm_saves_and_prints_the_command_that_goes_on(data_dir: Path, tmp_path: Path):
    out = tmp_path / "run"
    arguments = _arguments(data_dir, out, "--budget", "10m", "--set", "log_every_seconds=0.1")
    command = [sys.executable, "-m", "brigantine_training.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / "log.jsonl").is_file() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "stopped and saved. To go on:\n  brigantine-train run mnist" in said
    assert said.rstrip().endswith("--resume")
    assert read_record(out).steps > 0


def test_an_installation_that_only_serves_says_what_training_needs(tmp_path: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from brigantine_training.cli import main\n"
        f"sys.argv = ['brigantine-train', 'run', 'mnist', '--data-dir', 'x', '--out', {str(tmp_path / 'run')!r}]\n"
        "main()"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "training needs torch, which serving does without: pip install 'brigantine[train]'" in ended.stderr
    assert "Traceback" not in ended.stderr
