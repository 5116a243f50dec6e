"""The line a request leaves: its fields, what never stands in it, what it must not hold up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serving.guard import logs
from serving.guard.logs import RequestLog, flush_logs, readable
from serving.service import Service
from tests.conftest import ROOT
from tests.serving.guard.conftest import MODEL, Client, Serve, samples

ASKED = {"prompt": "The secret garden", "max_new_tokens": 5, "seed": 1}


def written(client: Client, file: Path) -> list[dict[str, object]]:
    flush_logs()
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_the_answers_own_figures(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    client = serve(log_file=str(file))
    key = {"Authorization": "Bearer sk-do-not-log-this-one", "X-Request-ID": "lesson-9/α"}
    answer = client.post("/generate", json=ASKED, headers=key)
    client.get("/health")
    client.get("/no\nwhere?key=sk-in-the-address")
    line, missing = written(client, file)
    meta = answer.json["metadata"]
    assert line["request_id"] == answer.headers["X-Request-ID"] != key["X-Request-ID"]
    assert (line["route"], line["status"], line["model"]) == ("/generate", 200, MODEL)
    assert line["prompt_tokens"] == meta["prompt_tokens"]
    assert line["output_tokens"] == meta["new_tokens"]
    assert line["finish_reason"] == meta["finish_reason"]
    assert line["first_token_seconds"] == meta["time_to_first_token_seconds"]
    assert 0 <= line["queue_seconds"] <= line["first_token_seconds"] <= line["total_seconds"]
    assert (missing["status"], missing["error"]) == (404, "not_found")
    text = file.read_text(encoding="utf-8")
    assert "secret" not in text and "sk-" not in text and text.count("\n") == 2


def test_prompts_only_where_it_is_switched_on(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    client = serve(log_file=str(file), log_prompts="true")
    text = client.post("/generate", json=ASKED).json["generated_text"]
    (line,) = written(client, file)
    assert line["prompts"] == ["The secret garden"]
    assert "The secret garden" + line["texts"][0] == text


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a", True), ("x" * 128, True), ("0f/9:b_c=@+.-", True), ("x" * 129, False), ("", False)]
    + [(bad, False) for bad in ("a b", "a\tb", 'a"b', "é", "a,b", "<script>")],
)
def test_request_ids_are_the_clients_where_they_are_harmless(
    serve: Serve, given: str, kept: bool
) -> None:
    client = serve()
    answer = client.get("/live", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept
    assert len(client.get("/live").headers["X-Request-ID"]) == 32


def test_a_line_in_a_terminal() -> None:
    said = {"time": "2026-01-02T03:04:05.678+00:00", "method": "POST", "route": "/a\nb"}
    said |= {"status": 200, "total_seconds": 0.25, "model": "m", "prompt_tokens": 3}
    said |= {"output_tokens": 5, "queue_seconds": 0.001, "first_token_seconds": 0.01}
    line = readable(said | {"finish_reason": "length", "request_id": "7"})
    end = "0.250 s 3 + 5 tokens first after 0.010 s (queue 0.001 s) length id 7"
    assert line.split(" ", 1)[1] == f"POST '/a\\nb' 200 {end}"


def test_off_is_off(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "log"
    serve(log_file=str(file), log_format="off").get("/nowhere")
    flush_logs()
    assert not file.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_costs_lines_not_answers(serve: Serve) -> None:
    client = serve(log_file="/dev/full")
    for _ in range(3):
        assert client.post("/generate", json=ASKED).status_code == 200
    flush_logs()
    assert samples(client)["llm_log_lines_lost_total"] == 3


def test_a_reader_that_stops_holds_up_nothing(
    loaded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    monkeypatch.setattr(logs, "open_log", lambda path: writer)
    monkeypatch.setattr(logs, "QUEUE_LINES", 5)
    lost: list[int] = []
    log = RequestLog(loaded.config, lambda: lost.append(1))
    record = logs.Record("i" * 128, "GET", "/", "x" * 60_000)
    for _ in range(30):
        log.add(record)  # would stand still with the pipe, were there no queue
    assert 20 <= len(lost) < 30
    os.close(reader)
    log.flush(10)


@pytest.mark.slow
def test_a_server_whose_output_is_closed_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "--model", MODEL, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        first = process.stdout.readline().decode()
        url = first.split(" at ")[1].split(" ")[0]
        process.stdout.close()
        process.stderr.close()
        with httpx.Client(base_url=url, timeout=60) as http:
            for _ in range(3):
                assert http.post("/generate", json=ASKED).status_code == 200
            lost = [x for x in http.get("/metrics").text.splitlines() if "log_lines_lost_t" in x]
        process.terminate()
        assert process.wait(60) == 0
    assert float(lost[-1].split()[1]) >= 1


def test_a_file_that_cannot_be_written_is_told_at_the_start() -> None:
    command = [sys.executable, "-m", "serving", "--port", "0"]
    wrong = os.environ | {"LLM_LOG_FILE": "/no/such/folder/log"}
    ended = subprocess.run(command, cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("LLM_LOG_FILE=/no/such/folder/log cannot be written: ")
    assert len(ended.stderr.splitlines()) == 1
