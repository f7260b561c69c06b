"""`make deploy-check` passes on what is shipped, and names each fault that is planted in a copy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from check import check
from deploy_check import haproxy, prometheus
from deploy_check.kustomize import render
from deploy_check.report import Report

from tests.deploy.planted import FAULTS, Planted, plant

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEPLOY, tmp_path / "deploy"))


def test_what_is_shipped_has_no_fault():
    report = check(DEPLOY)

    assert [str(fault) for fault in report.faults] == []
    assert len(report.files) > 10


HAVE_HAPROXY = shutil.which("haproxy") is not None
HAVE_PROMTOOL = shutil.which("promtool") is not None


@pytest.mark.parametrize("planted", FAULTS.values(), ids=list(FAULTS))
def test_a_planted_fault_is_named(planted: Planted, copy: Path):
    plant(copy, planted)

    faults = [str(fault) for fault in check(copy).faults]

    assert any(all(word in fault for word in planted.says) for fault in faults), "\n".join(faults)


@pytest.mark.skipif(not HAVE_HAPROXY, reason="needs haproxy: apt-get install haproxy")
def test_what_haproxy_refuses_is_named(copy: Path):
    plant(copy, Planted("haproxy.cfg", "balance leastconn", "balance leastcon", ()))

    [fault] = check(copy).faults

    assert fault.where == "haproxy -c" and "leastcon" in str(fault.got)


@pytest.mark.skipif(not HAVE_PROMTOOL, reason="needs promtool: apt-get install prometheus")
def test_what_promtool_refuses_is_named(copy: Path):
    plant(copy, Planted("prometheus/prometheus.yml", "scrape_interval", "scrape_intervall", ()))

    [fault] = check(copy).faults

    assert fault.where == "promtool check config" and "scrape_intervall" in str(fault.got)


def test_the_exit_code_says_whether_there_is_a_fault(copy: Path):
    assert run(copy).returncode == 0
    plant(copy, FAULTS["metric of an alert"])
    plant(copy, FAULTS["path of a probe"])

    ran = run(copy)

    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 2
    assert "'brigantine_models_resting'" in ran.stderr and "'/healthz'" in ran.stderr


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "check.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_program_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    for module in (haproxy, prometheus):
        monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)

    report = check(DEPLOY)

    assert report.faults == []
    assert ["HAProxy" in note or "promtool" in note for note in report.notes] == [True, True]


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="needs kubectl: https://kubernetes.io/docs/tasks/tools"
)
@pytest.mark.parametrize("name", ["base", "cpu", "gpu"])
def test_kubectl_makes_the_same_of_each_folder(name: str):
    command = ["kubectl", "kustomize", str(DEPLOY / "k8s" / name)]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    ours = [resource.document for resource in render(Report(DEPLOY), DEPLOY / "k8s" / name)]

    assert sorted(map(canonical, ours)) == sorted(map(canonical, yaml.safe_load_all(made)))


def canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True)
