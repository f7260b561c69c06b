"""A folder of plugins: all bad, with a server that serves all the same, and one that changes."""

import json
import time
from pathlib import Path

import httpx

from tests.e2e.server import Server, serving, until
from tests.plugins_dir import BAD, GOOD, bad_plugins, plugin_file
from tests.tiny import tiny_model


def test_ten_bad_plugins_are_named_and_mnist_serves(tmp_path: Path):
    folder = bad_plugins(tmp_path / "plugins")

    with serving(tmp_path, BRIGANTINE_PLUGINS_DIR=str(folder), BRIGANTINE_LOAD_TIMEOUT_S="6") as server:
        listed = {one["id"]: one for one in httpx.get(f"{server.url}/v1/plugins").json()["data"]}
        begin = time.perf_counter()
        statuses = [
            httpx.post(f"{server.url}/v1/models/mnist/generate", json={"seed": seed}).status_code
            for seed in range(50)
        ]
        took_s = time.perf_counter() - begin
        refused = httpx.post(f"{server.url}/v1/models/crashing/generate", json={})
        up = httpx.get(f"{server.url}/metrics").text

    assert len(BAD) == 10
    for name, (_, reason) in BAD.items():
        assert reason in listed[name]["reason"], name
        assert f'brigantine_plugin_up{{plugin="{name}"}} 0.0' in up
    assert 'brigantine_plugin_up{plugin="image"} 1.0' in up
    assert statuses == [200] * 50
    assert took_s < 10
    assert refused.status_code == 503
    assert "SIGSEGV" in refused.json()["error"]["message"]


def test_a_change_in_the_folder_is_followed_at_once(tmp_path: Path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    plugin_file(folder, "ink")
    tiny_model(folder / "models", "blots", plugin="ink")

    def described(server: Server) -> str:
        try:
            shown = httpx.get(f"{server.url}/v1/plugins/ink", timeout=5).json()
        except httpx.TransportError:
            return ""
        return json.dumps(shown)

    command = ("brigantine", "serve", "--plugins-dir", str(folder), "--dev")
    with serving(tmp_path, command) as server:
        assert "Which one." not in described(server)
        # A supervisor that only looks every 10 s cannot follow the second one in time.
        for word in ("Which one.", "Which of them."):
            (folder / "sedBhVT7r").write_text("an editor's own")
            plugin_file(folder, "ink", GOOD.replace("Which.", word))
            assert until(lambda word=word: word in described(server), 8), server.log
        assert httpx.post(f"{server.url}/v1/inks/generations", json={}).status_code == 200
        assert "ink.py changed: starting anew" in server.log
        assert "sedBhVT7r" not in server.log
