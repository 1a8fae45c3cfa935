"""Dockerfile, compose, Kubernetes and systemd: each is what its own linter accepts, and they agree with one another."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lockbeat import settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
BIN = Path(sys.executable).parent


def ran(*command: str | Path, **environment: str) -> str:
    """What a tool says; AssertionError with that if it is not content."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def read(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    assert ran(BIN / "hadolint", DEPLOY / "Dockerfile") == ""


def test_yamllint_has_nothing_to_say() -> None:
    assert ran(BIN / "yamllint", "--strict", "--config-file", DEPLOY / ".yamllint", DEPLOY) == ""


def test_compose_is_what_the_compose_specification_says() -> None:
    ran(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_manifests_are_what_kubernetes_says(path: Path, version: str) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_manifests_agree_with_one_another() -> None:
    assert sorted(read("kubernetes/kustomization.yaml")["resources"]) == [path.name for path in MANIFESTS]
    deployment = read("kubernetes/deployment.yaml")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert read("kubernetes/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    policy = read("kubernetes/networkpolicy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    [container] = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {"metrics"}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"health"}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/startupz",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    said = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert said["LOCKBEAT_HEALTH_PORT"] == str(ports["health"])
    assert said["LOCKBEAT_METRICS_PORT"] == str(ports["metrics"]) == pod["metadata"]["annotations"]["prometheus.io/port"]
    assert not pod["spec"]["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    image = (DEPLOY / "Dockerfile").read_text()
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in image


def test_a_stop_gets_the_time_that_a_shutdown_may_take() -> None:
    patience = runpy.run_path(str(DEPLOY / "app" / "jobs.py"))["beat"].patience
    unit = (DEPLOY / "systemd" / "lockbeat.service").read_text()
    found = [
        read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        int(read("compose.yaml")["services"]["beat"]["stop_grace_period"].removesuffix("s")),
        int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]),
    ]
    assert min(found) > patience


def test_prometheus_scrapes_the_port_that_compose_opens() -> None:
    compose, prometheus = read("compose.yaml"), read("prometheus/prometheus.yml")
    port = compose["services"]["beat"]["environment"]["LOCKBEAT_METRICS_PORT"]
    own, store = prometheus["scrape_configs"]
    assert own["dns_sd_configs"][0] | {"refresh_interval": ""} == {
        "names": ["beat"],
        "type": "A",
        "port": int(port),
        "refresh_interval": "",
    }
    assert store["static_configs"] == [{"targets": [f"beat:{port}"]}]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is not here")
def test_promtool_accepts_the_configuration() -> None:
    ran("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "lockbeat.service"
    text = (DEPLOY / "systemd" / "lockbeat.service").read_text()
    unit.write_text(text.replace("/opt/shop/.venv/bin/lockbeat", str(BIN / "lockbeat")))
    said = ran("systemd-analyze", "verify", "--man=no", unit)
    assert "lockbeat.service" not in said, said


def test_what_is_set_in_the_environment_is_an_option() -> None:
    """A variable that nothing reads would be a setting that does nothing."""
    text = "\n".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    named = set(re.findall(r"\bLOCKBEAT_[A-Z_]+\b", text))
    assert named == {"LOCKBEAT_URL", "LOCKBEAT_BIND", "LOCKBEAT_HEALTH_PORT", "LOCKBEAT_METRICS_PORT"}
    assert "url" in settings.all_found(url=None)
