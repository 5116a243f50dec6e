"""The server as a process: its start, its configuration, its time limit, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from serving.client import APIError, Client, ServerError, ServerProcess
from serving.config import ConfigError, load_config

pytestmark = pytest.mark.slow  # most tests start processes

ROOT = Path(__file__).resolve().parents[2]
MODEL = "course-gpt-1m"
COMMAND = [sys.executable, "-m", "serving"]


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=120
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_PORT", "70000"),
        ("LLM_DEBUG", "perhaps"),
        ("LLM_BATCHING", "sometimes"),
        ("LLM_DEFAULT_MAX_LENGTH", "500"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(name: str, value: str) -> None:
    ended = run(**{name: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and name in lines[0] and value in lines[0] and "must" in lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("slots", "0"),
        ("request_timeout", "-1"),
        ("default_temperature", "hot"),
        ("max_body_bytes", "12"),
        ("host", " "),
        ("device", " "),
    ],
)
def test_every_setting_has_a_range(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name}=.*must be"):
        load_config(**{name: value})


def test_a_start_prints_the_settings_in_force(server: ServerProcess) -> None:
    deadline = time.monotonic() + 60
    while "Settings:" not in server.log and time.monotonic() < deadline:
        time.sleep(0.05)
    (line,) = [line for line in server.log.splitlines() if line.startswith("Settings:")]
    assert "slots=8 (LLM_SLOTS" in line and "--show-config" in line, line


def test_a_taken_port_is_named_with_what_to_do(server: ServerProcess) -> None:
    port = server.url.rpartition(":")[2]
    ended = run(LLM_PORT=port, MODEL_NAME=MODEL)
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and f"port {port} is taken" in lines[0] and "LLM_PORT=0" in lines[0]


def test_an_unknown_model_ends_the_server_with_a_suggestion() -> None:
    with pytest.raises(ServerError, match="course-gpt-4m") as caught:
        ServerProcess("wrong", model="course-gpt-4n").start()
    assert len(str(caught.value).splitlines()) == 1
    assert not ServerProcess._running.get("wrong")


# The loading thread imports transformers: there it waits until the test has seen enough.
WAITS = """
import os, sys, time
class Waits:
    def find_spec(self, name, path=None, target=None):
        while name == "transformers" and not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.02)
sys.meta_path.insert(0, Waits())
"""


def test_it_listens_at_once_and_limits_time(tmp_path: Path) -> None:
    """While the model is loaded, and then with a limit that no text of 150 tokens meets."""
    port, go_on = free_port(), tmp_path / "go on"
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    settings = {"LLM_PORT": str(port), "MODEL_NAME": MODEL, "LLM_REQUEST_TIMEOUT": "0.05"}
    settings |= {"GO_ON": str(go_on)}
    settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            def until_live(deadline: float) -> None:
                while True:
                    assert process.poll() is None and time.monotonic() < deadline
                    try:
                        assert http.get("/live").status_code == 200
                        return
                    except httpx.ConnectError:
                        time.sleep(0.02)

            until_live(time.monotonic() + 120)
            health = http.get("/health")
            assert (health.status_code, health.json()["error"]) == (503, "Model not loaded")
            loading = http.post("/generate", json={"prompt": "x"})
            assert loading.status_code == 503 and loading.headers["Retry-After"]
            go_on.touch()
            deadline = time.monotonic() + 120
            while (health := http.get("/health")).status_code != 200:
                assert process.poll() is None and time.monotonic() < deadline
                assert health.json()["error"] == "Model not loaded"
                time.sleep(0.02)

            body = {"prompt": "x", "max_new_tokens": 190, "top_k": 0, "temperature": 2.0}
            late = http.post("/generate", json=body)
            assert late.status_code == 504 and "time limit" in late.json()["error"]
            with pytest.raises(httpx.RemoteProtocolError):  # a text cut short must not look whole
                http.post("/stream", json=body)
            with pytest.raises(APIError, match="time limit"), Client(str(http.base_url)) as client:
                list(client.stream(**body))
            ai = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="-", max_retries=0)
            with pytest.raises(openai.APIError, match="time limit"):
                list(
                    ai.completions.create(
                        model=MODEL,
                        prompt="x",
                        max_tokens=190,
                        stream=True,
                        extra_body={"ignore_eos": True},
                    )
                )
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert process.stdout is not None
    said = process.stdout.read()
    first, second = said.splitlines()
    assert f"http://127.0.0.1:{port}/health" in first
    assert "request_timeout=0.05 (LLM_REQUEST_TIMEOUT in the environment)" in second


def test_sigterm_finishes_what_runs_and_refuses_what_is_new() -> None:
    server = ServerProcess("drain", model=MODEL, max_length_limit=512, slots=4).start()
    assert server.process is not None
    request = {"prompt": "The", "max_new_tokens": 500, "num_return_sequences": 16, "seed": 1}
    with ThreadPoolExecutor(2) as pool, Client(server.url, retries=0) as client:
        running = pool.submit(client.generate, **request)
        streamed = client.stream("The", max_new_tokens=100)
        pieces = iter(streamed)
        next(pieces)
        os.kill(server.process.pid, signal.SIGTERM)
        time.sleep(0.3)
        refused = False
        try:
            with Client(server.url, retries=0) as late:
                late.generate("x")
        except APIError as error:
            refused = error.status == 503 and "shutting down" in str(error)
        except httpx.TransportError:
            refused = True  # a fast machine is through already
        assert refused
        assert len(running.result().texts) == 16
        list(pieces)
        assert streamed.metadata["finish_reason"] in ("length", "end_of_text")
        assert server.process.wait(60) == 0
    server.stop()


def test_starting_again_stops_the_first_and_the_drain_ends_at_its_limit() -> None:
    settings = {"model": MODEL, "drain_seconds": 0.1, "max_length_limit": 512, "slots": 1}
    first = ServerProcess("twice", **settings).start()
    request = {"prompt": "The", "max_new_tokens": 500, "num_return_sequences": 16}
    with ThreadPoolExecutor(1) as pool, Client(first.url, retries=0) as client:
        running = pool.submit(client.generate, **request)
        time.sleep(0.3)
        second = ServerProcess("twice", **settings).start()
        error = running.exception()
        assert isinstance(error, APIError) and error.status == 503
    assert first.process is not None and first.process.poll() == 0
    with Client(second.url) as client:
        assert client.wait_until_ready(5)["model"] == MODEL
    assert second.stop() == 0
    assert "stopped" in repr(second)


def test_load_test_measures_a_server(server: ServerProcess, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "serving.client.load_test", server.url, "--requests", "12"]
    closed = subprocess.run(
        [*command, "--clients", "4", "--tokens", "4-8", "--ignore-end", "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert closed.returncode == 0, closed.stderr
    assert "time to first token" in closed.stdout and "errors: 0" in closed.stdout
    content = json.loads(report.read_text())
    summary = content["summary"]
    assert summary["requests"] == 12 and not summary["errors"]
    assert 12 * 4 <= summary["tokens"] <= 12 * 8
    assert 0 < summary["time_to_first_token"]["p50"] <= summary["latency"]["p99"]
    opened = subprocess.run(
        [*command, "--rate", "20", "--tokens", "4"], cwd=ROOT, capture_output=True, text=True
    )
    assert opened.returncode == 0 and "12 requests" in opened.stdout
    nobody = subprocess.run(
        [*command[:3], f"http://127.0.0.1:{free_port()}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert nobody.returncode == 2 and "no OpenAI-compatible server" in nobody.stderr


def test_idle_threads_are_bounded(server: ServerProcess) -> None:
    assert server.process is not None
    import psutil

    threads = psutil.Process(server.process.pid).num_threads()
    assert threads < 8 + 40 + 40 + 40
    assert threading.active_count() < 50
