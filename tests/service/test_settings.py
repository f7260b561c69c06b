from pathlib import Path

import pytest
from brigantine.errors import SettingsInvalid
from brigantine.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", "/srv/models")
    monkeypatch.setenv("BRIGANTINE_THREADS", "3")

    settings = Settings.read()

    assert (settings.models_dir, settings.threads) == (Path("/srv/models"), 3)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"MAX_N": "200", "QUEUE_ROWS": "100"}, "max_n is 200 and queue_rows 100"),
        ({"DEVICE": "cpu", "REQUIRE_GPU": "1"}, "device is cpu and require_gpu is set"),
    ],
)
def test_settings_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], message: str
):
    for name, value in env.items():
        monkeypatch.setenv(f"BRIGANTINE_{name}", value)

    with pytest.raises(SettingsInvalid, match=message):
        Settings.read()


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIGANTINE_THREAD", "2")
    monkeypatch.setenv("BRIGANTINE_DEVICE", "tpu")
    monkeypatch.setenv("BRIGANTINE_TIMEOUT_S", "-1")

    with pytest.raises(SettingsInvalid) as caught:
        Settings.read()

    message = str(caught.value)
    assert "BRIGANTINE_THREAD: no such setting; did you mean BRIGANTINE_THREADS?" in message
    assert "BRIGANTINE_DEVICE" in message
    assert "got 'tpu'" in message
    assert "BRIGANTINE_TIMEOUT_S" in message
