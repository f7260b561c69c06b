from pathlib import Path

import pytest
from brigantine.errors import SettingsInvalid
from brigantine.session import SessionOptions
from brigantine.settings import Settings, cores


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", "/srv/models")
    monkeypatch.setenv("BRIGANTINE_THREADS", "3")

    settings = Settings.read()

    assert (settings.models_dir, settings.threads) == (Path("/srv/models"), 3)


def test_one_model_may_be_run_in_another_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIGANTINE_GPU_MEM_LIMIT_BYTES", "1000")
    monkeypatch.setenv("BRIGANTINE_MODEL_OPTIONS", '{"mnist": {"device": "cpu", "intra_threads": 2}}')

    settings = Settings.read()

    assert settings.session("mnist") == SessionOptions(
        device="cpu", intra_threads=2, gpu_mem_limit_bytes=1000
    )
    assert settings.session("faces") == SessionOptions(gpu_mem_limit_bytes=1000)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"MAX_N": "200", "QUEUE_ROWS": "100"}, "max_n is 200 and queue_rows 100"),
        ({"DEVICE": "cpu", "REQUIRE_GPU": "1"}, "device is cpu and require_gpu is set"),
        ({"MODEL_OPTIONS": '{"mnist": {"devise": "cpu"}}'}, "model_options: mnist: devise: Extra inputs"),
        (
            {"MODEL_OPTIONS": '{"mnist": {"intra_threads": 0}}'},
            "model_options: mnist: intra_threads: Input should",
        ),
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


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 64), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_a_containers_quota_bounds_the_cores(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr("brigantine.settings._QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))

    assert cores() == expected
    assert Settings().threads == min(expected, 4)
