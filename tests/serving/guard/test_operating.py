"""docs/operating.md says what is there, and all of it."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from tests.serving.guard.conftest import Serve

TEXT = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def test_the_table_of_metrics_is_what_the_service_shows(serve: Serve) -> None:
    rows = re.findall(r"(?m)^\| `([\w:]+)` \| (gauge|counter|histogram) \|", TEXT)
    client = serve()
    client.post("/generate", json={"prompt": "A server", "max_new_tokens": 3})
    shown = re.findall(r"(?m)^# TYPE (\S+) (\w+)$", client.get("/metrics").text)
    there = {(name, kind) for name, kind in shown if not name.endswith("_created")}
    told = {row for row in rows if not row[0].startswith("llm_gpu_")}  # only where there is one
    assert told == there and len(rows) == len(set(rows))


def test_what_it_names_is_there() -> None:
    for name in re.findall(r"`([\w-]+\.(?:yml|json))`", TEXT):
        assert (ROOT / "deploy" / "prometheus" / name).is_file(), name
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", TEXT):
        assert (ROOT / path).exists(), path
