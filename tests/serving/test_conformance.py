"""The running API against its own /openapi.json, tried by schemathesis over a real socket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.client import ServerProcess

CONFIG = Path(__file__).with_name("schemathesis.toml")


def conform(url: str, folder: Path, *options: str) -> None:
    """Every check, every route; the report is shown where one fails."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    command += ["--no-color", "run", f"{url}/openapi.json", "--workers", "2", "--checks", "all"]
    command += ["--request-timeout", "60", "--suppress-health-check", "all", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    report = "\n".join(line[:300] for line in ended.stdout.splitlines())
    assert ended.returncode == 0, report[-6000:] + ended.stderr[-2000:]


@pytest.mark.slow
def test_the_api_keeps_its_contract(server: ServerProcess, tmp_path: Path) -> None:
    conform(server.url, tmp_path, "--max-examples", "6", "--phases", "fuzzing", "--seed", "1")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_api_keeps_its_contract_in_every_phase(server: ServerProcess, tmp_path: Path) -> None:
    conform(
        server.url,
        tmp_path,
        "--max-examples",
        "150",
        "--phases",
        "examples,coverage,fuzzing,stateful",
    )


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_chat_server_keeps_its_contract(chat_model: Path, tmp_path: Path) -> None:
    """With room in its queue: a 503 because it is full would be an honest answer here, too."""
    with ServerProcess("chat", model=chat_model) as chat:
        conform(chat.url, tmp_path, "--max-examples", "40", "--phases", "coverage,fuzzing")
