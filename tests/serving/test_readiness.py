"""The readiness checklist: every box ticked on a good server, and empty where its property is not.

A server that lacks a property is either a real one with that part switched off, or the good one
behind a small proxy that plants one fault.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.client import ServerProcess
from serving.client.readiness import CHECKS, check, main

MODEL = "course-gpt-1m"
KEY = secrets.token_urlsafe(24)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def change(self, **fields: Any) -> None:
        """Other values in a JSON body; None takes a field away."""
        content = json.loads(self.body) | fields
        self.body = json.dumps({k: v for k, v in content.items() if v is not None}).encode()


@dataclass
class Asked:
    method: str
    path: str
    body: bytes
    headers: dict[str, str]


Fault = Callable[[Asked, Answer], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    log = tmp_path_factory.mktemp("log") / "requests.log"
    settings = {"requests_per_minute": 100_000, "response_cache_mb": 4, "slots": 4}
    with ServerProcess("good", model=MODEL, api_keys=KEY, log_file=log, **settings) as server:
        yield server, log


@pytest.fixture
def faulty(good: tuple[ServerProcess, Path]) -> Iterator[Callable[[Fault], str]]:
    """`faulty(fault)`: the address of a server that is the good one but for one fault."""
    behind, servers = httpx.Client(base_url=good[0].url, timeout=60, trust_env=False), []

    def start(fault: Fault) -> str:
        class Proxy(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                asked = Asked(self.command, self.path, self.rfile.read(size), dict(self.headers))
                passed = {k: v for k, v in asked.headers.items() if k in PASSED}
                said = behind.request(asked.method, asked.path, content=asked.body, headers=passed)
                kept = {k: v for k, v in said.headers.items() if k not in DROPPED}
                answer = Answer(said.status_code, kept, said.content)
                fault(asked, answer)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_GET

        server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    behind.close()
    for server in servers:
        server.shutdown()
        server.server_close()


PASSED = {"Authorization", "Content-Type", "X-Request-ID", "Accept"}
DROPPED = {"content-length", "transfer-encoding", "connection", "server", "date"}


def on(path: str, act: Callable[[Answer], None]) -> Fault:
    """The fault is in the answers of one path."""
    return lambda asked, answer: act(answer) if asked.path == path else None


def status(number: int) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "status", number)


def without(header: str) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.headers = {k: v for k, v in answer.headers.items() if header not in k.lower()}

    return act


def hidden(words: str) -> Callable[[Answer], None]:
    return lambda answer: setattr(answer, "body", answer.body.replace(words.encode(), b"x"))


def takes_everything(asked: Asked, answer: Answer) -> None:
    if answer.status in (400, 413):
        answer.status = 200


def random_seed(asked: Asked, answer: Answer) -> None:
    if asked.path == "/generate" and answer.status == 200:
        answer.change(generated_text=secrets.token_hex(8))


def deaf_to_seeds(asked: Asked, answer: Answer) -> None:
    if asked.path == "/generate" and answer.status == 200:
        answer.change(generated_text="always the same")


def breaks_under_load() -> Fault:
    here, lock = [0], threading.Lock()

    def act(asked: Asked, answer: Answer) -> None:
        with lock:
            here[0] += 1
            if here[0] % 4 == 0:
                answer.status = 500

    return act


def shows_the_inside(asked: Asked, answer: Answer) -> None:
    if answer.status == 404:
        answer.change(error="Traceback (most recent call last): …")


def never_free(asked: Asked, answer: Answer) -> None:
    if asked.path == "/metrics":
        lines = answer.body.decode().splitlines()
        held = [x for x in lines if x.startswith("vllm:num_requests_running")]
        answer.body = answer.body.replace(held[0].encode(), held[0][:-3].encode() + b"1.0")


FAULTS: dict[str, list[tuple[Fault, str]]] = {
    "model loaded at the start": [
        (on("/health", lambda answer: answer.change(model=None)), "names no model"),
        (on("/health", lambda answer: answer.change(model="other")), "names other, but"),
    ],
    "health endpoint": [
        (on("/health", status(404)), "status 404"),
        (on("/health", lambda answer: answer.change(status="so so")), "does not say"),
    ],
    "validation": [
        (takes_everything, "status 200"),
        (on("/generate", lambda a: setattr(a, "body", b'{"error": "wrong"}')), "does not name"),
    ],
    "error handling": [
        (on("/no-such-route", status(500)), "status 500"),
        (on("/no-such-route", lambda a: setattr(a, "body", b"<html>")), "without JSON"),
        (shows_the_inside, "inside of the program"),
    ],
    "metrics": [
        (on("/metrics", status(404)), "status 404"),
        (on("/metrics", hidden("time_to_first_token")), "nothing of first token"),
        (on("/metrics", hidden("llm_errors_total")), "nothing of errors"),
    ],
    "limits of size": [(takes_everything, "status 200")],
    "time limit": [
        (on("/info", lambda answer: answer.change(request_timeout_seconds=None)), "no time limit"),
        (on("/info", lambda answer: answer.change(request_timeout_seconds=9e9)), "no time limit"),
    ],
    "rate limits": [(on("/generate", without("ratelimit")), "any number of requests")],
    "documentation": [
        (on("/openapi.json", status(404)), "status 404"),
        (on("/openapi.json", hidden("/generate")), "does not describe"),
        (on("/openapi.json", hidden("temperature")), "no parameters"),
    ],
    "tests": [(random_seed, "two different texts"), (deaf_to_seeds, "another seed")],
    "load test": [(breaks_under_load(), "status 500")],
    "bounded queue": [
        (on("/metrics", hidden("llm_queue_places")), "does not say"),
    ],
    "hung-up clients": [(never_free, "still taken")],
    "liveness apart": [(on("/live", status(404)), "status 404")],
    "API keys": [(lambda asked, a: setattr(a, "status", 200), "no key is asked for")],
    "request ids": [(lambda asked, a: without("x-request-id")(a), "does not come back")],
}
REAL = {"structured logs", "no prompts in logs", "graceful shutdown"}  # a server of their own


def test_every_box_is_ticked_on_a_good_server_and_has_its_fault(
    good: tuple[ServerProcess, Path],
) -> None:
    server, log = good
    boxes = check(server.url, KEY, log, only=tuple(CHECKS)[:-1])
    assert [(box.name, box.why) for box in boxes if not box.ticked] == []
    assert set(FAULTS) | REAL == set(CHECKS)


@pytest.mark.parametrize(
    ("box", "fault", "why"),
    [(box, fault, why) for box, faults in FAULTS.items() for fault, why in faults],
)
def test_a_fault_empties_its_box(
    box: str,
    fault: Fault,
    why: str,
    faulty: Callable[[Fault], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.client.readiness_probe.PATIENCE_SECONDS", 0.3)
    (found,) = check(faulty(fault), KEY, only=(box,))
    assert not found.ticked and why in found.why
    assert "http" not in found.why


def test_what_is_switched_off_stays_empty(tmp_path: Path) -> None:
    """A server without keys and limits, that logs prompts as text and cuts texts off at its end."""
    log = tmp_path / "requests.log"
    settings = {"log_file": log, "log_format": "text", "log_prompts": True, "drain_seconds": 0}
    with ServerProcess("bad", model=MODEL, max_length_limit=512, slots=4, **settings) as server:
        assert server.process is not None
        boxes = {b.name: b.why for b in check(server.url, log=log) if not b.ticked}
        assert boxes == {
            "structured logs": "a log line is no JSON",
            "rate limits": "an answer tells no limit: any number of requests is taken",
            "API keys": "no key is asked for",
            "no prompts in logs": "the prompt stands in the log",
            "graceful shutdown": "not tried: it would end this server",
        }
        assert main([server.url]) == 1
        asked = {
            "url": server.url,
            "only": ("graceful shutdown",),
            "stop": server.process.terminate,
        }
        (cut,) = check(**asked)  # type: ignore[arg-type]
    assert (cut.ticked, cut.why) == (False, "a running text was cut off")


def test_the_last_box_is_ticked_by_ending_the_server() -> None:
    with ServerProcess("ends", model=MODEL, max_length_limit=512) as server:
        assert server.process is not None
        (box,) = check(server.url, stop=server.process.terminate, only=("graceful shutdown",))
        assert box.ticked and server.process.wait(60) == 0
    (gone,) = check(server.url, only=("health endpoint",))
    assert not gone.ticked and gone.why.startswith("ConnectError")
