"""Two replicas that are restarted under load, and what their clients and their counters make of it.

`benchmarks/lifecycle.py` does the same with HAProxy between them, and for longer.
"""

from contextlib import ExitStack
from pathlib import Path

from tests.e2e.clients import load
from tests.e2e.counters import Watcher
from tests.e2e.server import Server, free_port, serving, until

QUIET = {"BRIGANTINE_ACCESS_LOG": "false"}


def test_replicas_are_restarted_one_after_the_other_without_a_failed_request(tmp_path: Path):
    ports = [free_port(), free_port()]
    homes = [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as services:

        def start(number: int) -> Server:
            command = ("brigantine", "serve", "--port", str(ports[number]))
            return services.enter_context(serving(homes[number], command, BRIGANTINE_WORKERS="1", **QUIET))

        replicas = [start(0), start(1)]
        with load([f"127.0.0.1:{port}" for port in ports], clients=4, tries=4) as (account, _):
            for number, replica in enumerate(replicas):
                replica.process.terminate()
                assert replica.process.wait(30) == 0, replica.log
                start(number)
            asked = account.asked
            assert until(lambda: account.asked > asked + 50)

        assert account.broken == []
        assert account.statuses.keys() == {200}


def test_counters_never_go_back_and_account_for_every_answer_although_a_worker_is_killed(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="4", **QUIET) as server:
        assert until(lambda: server.log.count("model mnist: serving") == 4, 40)
        host = server.url.removeprefix("http://")
        with Watcher(server) as watcher, load([host], clients=8, limit=5000) as (account, wait):
            assert until(lambda: account.asked > 2500, 60)
            server.workers[0].kill()
            wait()
        made = watcher.answered()

    assert watcher.looks > 5 and watcher.gone_back == []
    assert account.asked == 5000
    assert account.statuses.keys() == {200}
    assert len(account.broken) <= 8  # what each client had under way
    # Some of these were made, and their answer was lost.
    assert account.statuses[200] <= made <= account.statuses[200] + len(account.broken)
