"""What has a worker replaced in `--dev`; that it is, `tests/e2e/test_plugins.py` tries with a server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from brigantine.reload import Sources, heeds_hangups
from watchfiles import Change


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("ink.py", True),
        ("pen/nib.py", True),
        ("pen", True),  # a package that was moved here
        ("models/blots/manifest.json", True),
        ("models/blots/model.onnx", True),
        ("pen/models/blots", True),
        ("sedBhVT7r", False),
        ("4913", False),
        ("models/blots/sedBhVT7r", False),
        (".#ink.py", False),
        ("#ink.py#", False),
        ("ink.py~", False),
        (".ink.py.swp", False),
        ("notes.txt", False),
        ("pen/__pycache__/nib.py", False),
        ("ink.pyc", False),
    ],
)
def test_plugins_and_models_matter_and_what_editors_write_does_not(tmp_path: Path, path: str, matters: bool):
    (tmp_path / "pen").mkdir()
    (tmp_path / "pen" / "__init__.py").touch()

    assert Sources(tmp_path)(Change.modified, str(tmp_path / path)) is matters


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_only_a_process_that_handles_hangups_is_sent_one():
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        script = "import sys; print('ready', flush=True); sys.stdin.read()"
        other = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        heeds = heeds_hangups(os.getpid()), heeds_hangups(other.pid)
        other.communicate()
    finally:
        signal.signal(signal.SIGHUP, before)

    assert heeds == (True, False)
    assert not heeds_hangups(other.pid)
