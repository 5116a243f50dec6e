"""deploy/prometheus: real tools read it, and every query names figures that the service shows."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.client import Client, ServerProcess
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy" / "prometheus"
WORDS = {"by", "le", "instance", "sum", "rate", "increase", "histogram_quantile", "label_values"}
GPU = "llm_gpu_"  # shown only where there is one


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, str]:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    assert len(found) == sum(len(panel["targets"]) for panel in board["panels"]) > 20
    return found


def names(expression: str) -> set[str]:
    """The series that a query asks for."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"[A-Za-z_:][\w:]*", bare)) - WORDS


def shown(text: str) -> set[str]:
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples} | {"up"}


def test_every_query_names_what_the_service_shows(server: ServerProcess) -> None:
    with Client(server.url) as client:
        client.generate("A server", max_new_tokens=3)
    there = shown(httpx.get(f"{server.url}/metrics").text)
    for name, expression in (alerts() | panels()).items():
        asked = {series for series in names(expression) if not series.startswith(GPU)}
        assert asked <= there, f"{name} asks for {asked - there}"
    assert names('sum by (le) (rate(llm_no_such{a="b"}[5m])) > 2') == {"llm_no_such"}


@pytest.mark.parametrize(
    "arguments",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_promtool_finds_nothing_wrong(arguments: str, require_tool: Callable[..., str]) -> None:
    command = [require_tool("promtool"), *arguments.split()]
    ran = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_tried_by_the_rules_own_tests() -> None:
    tests = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    tried = [one for test in tests for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in tried if one["exp_alerts"]} == set(alerts())


@pytest.fixture
def prometheus(
    server: ServerProcess, require_tool: Callable[..., str], tmp_path: Path
) -> Iterator[httpx.Client]:
    """A real Prometheus with the shipped configuration, asking the tests' server each second."""
    tool = require_tool("prometheus")
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(DEPLOY / name, tmp_path)
    file = tmp_path / "prometheus.yml"
    text = file.read_text(encoding="utf-8").replace("127.0.0.1:5000", server.url.split("//")[1])
    file.write_text(text.replace("scrape_interval: 5s", "scrape_interval: 1s"), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [tool, f"--config.file={file}", f"--web.listen-address={where}"]
    command.append(f"--storage.tsdb.path={tmp_path / 'data'}")
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{where}/api/v1", timeout=30) as client:
                yield client
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_real_prometheus_has_data_for_every_query(
    server: ServerProcess, prometheus: httpx.Client
) -> None:
    asked = panels()
    for name, expression in alerts().items():  # what is compared, whether or not it is too much
        asked[name] = re.sub(r" (>|==) [\d.]+$", "", expression)
    asked["LLMErrors"] = asked["LLMErrors"].replace('"5.."', '"2.."')  # nothing fails here
    asked = {name: text for name, text in asked.items() if GPU not in text}
    missing = set(asked)
    end = time.monotonic() + 120
    with Client(server.url) as client:
        while missing and time.monotonic() < end:
            client.generate("A server", max_new_tokens=8)  # rates need something that rises
            for name in sorted(missing):
                query = asked[name].replace("$instance", ".*").replace("$__rate_interval", "1m")
                try:
                    said = prometheus.get("/query", params={"query": query})
                except httpx.TransportError:
                    break  # not up yet
                if said.status_code == 503:
                    break  # nor ready
                answer = said.json()
                assert answer["status"] == "success", f"{name}: {answer}"
                if answer["data"]["result"]:
                    missing.remove(name)
    assert not missing
