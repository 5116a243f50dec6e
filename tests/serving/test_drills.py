"""Failures made on purpose on real servers: none loses an accepted request, none leaks.

The short drills share one server, whose disk for logs is full all the time. `make soak` runs the
long ones. Killed client processes over minutes are in `test_soak.py`, hostile requests in
`test_conformance.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
import pytest

from classroom.watching import Sample, histogram, quantile, read_metrics, until, value
from serving.client import ServerProcess
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, /dev/full, descriptors"),
]
MODEL = "course-gpt-1m"
SLOTS, PLACES = 4, 4
SETTINGS = {"slots": SLOTS, "queue_length": PLACES, "max_length_limit": 512}
SHORT = {"prompt": "A server is", "max_new_tokens": 4, "seed": 1}
LONG = {"prompt": "The computer", "max_new_tokens": 480, "temperature": 0}


@dataclass
class Drilled:
    """A server under test.

    Attributes:
        http: calls it.
        url: its address.
        process: its process.
        idle: threads, descriptors and resident MB after a warm-up.
    """

    http: httpx.Client
    url: str
    process: psutil.Process
    idle: tuple[int, int, float] = (0, 0, 0.0)

    def state(self) -> tuple[int, int, float]:
        now = self.process
        return now.num_threads(), now.num_fds(), now.memory_info().rss / 1e6

    def metrics(self) -> Sample:
        return read_metrics(self.http.get("/metrics").text)

    def running(self) -> float:
        return value(self.metrics(), "vllm:num_requests_running")

    def free(self) -> bool:
        shown = self.metrics()
        return value(shown, "vllm:num_requests_waiting") + value(
            shown, "vllm:num_requests_running"
        ) == 0  # fmt: skip

    def post(self, body: dict[str, Any] = SHORT) -> httpx.Response:
        """An answer of /generate; to an empty body, of /live."""
        return self.http.post("/generate", json=body) if body else self.http.get("/live")

    def crowd(self, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
        """The answers to requests that are sent at the same moment."""
        with ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(self.post, bodies))

    def stream(self, body: dict[str, Any]) -> socket.socket:
        """A connection on which /stream was asked for; nothing has been read."""
        host, port = self.url.removeprefix("http://").split(":")
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.settimeout(60)
        line.connect((host, int(port)))
        content = json.dumps(body).encode()
        head = f"POST /stream HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(content)}\r\n"
        kind = "Content-Type: application/json\r\nAccept: text/event-stream\r\n\r\n"
        line.sendall((head + kind).encode() + content)
        return line


def drilled(url: str, pid: int) -> Drilled:
    limits = httpx.Limits(max_connections=None)
    http = httpx.Client(base_url=url, timeout=120, trust_env=False, limits=limits)
    server = Drilled(http, url, psutil.Process(pid))
    server.crowd([SHORT] * SLOTS)
    server.idle = server.state()
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[Drilled]:
    """The server of most drills; its log lines go to a disk that is full."""
    with ServerProcess("drills", model=MODEL, log_file="/dev/full", **SETTINGS) as process:
        assert process.process is not None
        found = drilled(process.url, process.process.pid)
        yield found
        found.http.close()
        assert "Traceback" not in process.log, process.log[-3000:]


def long_or_short(*seconds: int) -> Any:
    """The short drill in every run, the long one in `make soak`."""
    first, *rest = seconds
    marked = [pytest.param(s, marks=pytest.mark.soak) for s in rest]
    return pytest.mark.parametrize("seconds", [first, *marked])


@long_or_short(0, 60)
@pytest.mark.timeout(240)
def test_overload(server: Drilled, seconds: int) -> None:
    """Ten times as many as there are places: the rest hears at once when to come back."""
    before, end = server.metrics(), time.monotonic() + seconds
    calm: list[tuple[float, float]] = []
    times: dict[object, list[float]] = {200: [], 503: [], "/live": []}
    while not calm or time.monotonic() < end:
        calm.append(unloaded(server))
        overload(server, times)
    accepted, refused = len(times[200]), len(times[503])
    assert accepted >= SLOTS + PLACES and refused
    until(server.free)
    after = server.metrics()

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("llm_errors_total", error_type="queue_full") == refused
    ended = [grown("vllm:request_success_total", finished_reason=r) for r in ("length", "stop")]
    assert sum(ended) == accepted + len(calm) * (1 + SLOTS)
    p95 = {kind: quantiles(found, n=20)[-1] for kind, found in times.items()}
    shown = {kind: f"p50 {1e3 * median(found):.0f}, p95 {1e3 * p95[kind]:.0f} ms"
             for kind, found in times.items()}  # fmt: skip
    inside = [quantile(share, refusals(before, after)) * 1000 for share in (0.5, 0.95)]
    # Who waits, waits until as many texts as there are places have left the slots before it.
    alone, among = (max(found) for found in zip(*calm, strict=True))
    waves = -(-PLACES // SLOTS)
    bound = 2 * alone + waves * among
    print(
        f"overload: {accepted} accepted, {shown[200]}; alone {1e3 * alone:.0f} ms, with all slots "
        f"in use {1e3 * among:.0f}: bound {1e3 * bound:.0f}; {refused} refused {shown[503]} (in "
        f"the server {inside[0]:.1f}, {inside[1]:.1f}); /live {shown['/live']}"
    )
    if seconds:  # a busy machine makes all of them slow; only a long run has enough of each
        assert p95[503] < max(0.1, 4 * p95["/live"])
        assert p95[200] < bound


def unloaded(server: Drilled) -> tuple[float, float]:
    """Seconds of a text that is alone, and of the slowest where every slot has one."""
    alone = server.post(LONG).elapsed.total_seconds()
    return alone, max(a.elapsed.total_seconds() for a in server.crowd([LONG] * SLOTS))


def overload(server: Drilled, times: dict[object, list[float]]) -> None:
    """Ask for ten times as many texts as there are places; adds the seconds of each answer.

    Some ask /live in the same crowd: what that takes is the machine's and the crowd's own.
    """
    for answer in server.crowd([LONG] * 10 * (SLOTS + PLACES) + [{}] * 8):
        took = answer.elapsed.total_seconds()
        if answer.request.method == "GET":
            times["/live"].append(took)
            continue
        assert answer.status_code in (200, 503), answer.text
        times[answer.status_code].append(took)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            assert answer.json()["metadata"]["finish_reason"] in ("length", "end_of_text")


def refusals(before: Sample, after: Sample) -> dict[float, float]:
    """The server's own times of its refusals, as a histogram."""
    refused = ("http_response_status_code", "503")
    some = [{k: n for k, n in sample.items() if refused in k[1]} for sample in (before, after)]
    return histogram(*some, "http_server_request_duration_seconds")


def test_slow_readers(server: Drilled) -> None:
    """Clients that do not read hold up nobody, and find their whole text when they do."""
    slow = [server.stream(LONG) for _ in range(SLOTS)]
    until(lambda: server.running() > 0)
    answers = server.crowd([SHORT] * PLACES)
    assert {answer.status_code for answer in answers} == {200}
    for line in slow:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            piece = line.recv(4096)
            assert piece, "the server hung up"
            received += piece
        assert b"event: done" in received
        line.close()


def test_half_open_connections(server: Drilled) -> None:
    """Connections on which no request ever becomes whole."""
    host, port = server.url.removeprefix("http://").split(":")
    lines = [socket.create_connection((host, int(port))) for _ in range(40)]
    for line in lines[::2]:
        line.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Le")
    for _ in range(3):
        assert server.post().status_code == 200
    assert server.http.get("/health").status_code == 200
    for line in lines:
        line.close()


def test_clients_that_are_gone(server: Drilled) -> None:
    """Hung up in the middle of a text, without a word (RST): the slots are free again."""
    before = server.metrics()
    for _ in range(3):
        lines = [server.stream(LONG) for _ in range(SLOTS)]
        for line in lines:
            assert line.recv(64)  # the text has begun
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()
    until(server.free)
    gone = {"error_type": "client_gone"}
    found = value(server.metrics(), "llm_errors_total", **gone)
    assert found > value(before, "llm_errors_total", **gone)
    assert {answer.status_code for answer in server.crowd([SHORT] * SLOTS)} == {200}


@long_or_short(2, 10)
def test_a_server_that_stands_still(server: Drilled, seconds: int) -> None:
    """SIGSTOP, then SIGCONT: what was asked before and meanwhile is answered."""
    with ThreadPoolExecutor(SLOTS + 2) as pool:
        answers = [pool.submit(server.post, LONG) for _ in range(SLOTS)]
        until(lambda: server.running() > 0 or all(a.done() for a in answers))
        server.process.send_signal(signal.SIGSTOP)
        try:
            answers += [pool.submit(server.post) for _ in range(2)]
            time.sleep(seconds)  # the fault itself
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert [answer.result().status_code for answer in answers] == [200] * (SLOTS + 2)


def test_after_all_drills_nothing_has_leaked(server: Drilled) -> None:
    """The last one on this server. Its log went to a full disk all the time."""
    until(server.free)
    assert value(server.metrics(), "llm_log_lines_lost_total") > 10
    server.http.close()
    limits = (server.idle[0] + 2, server.idle[1] + 3)
    until(lambda: server.state()[:2] <= limits and server.state()[1] <= limits[1], 30)
    threads, descriptors, memory = server.state()
    print(
        f"drills: threads {server.idle[0]} → {threads}, descriptors {server.idle[1]} → "
        f"{descriptors}, memory {server.idle[2]:.0f} → {memory:.0f} MB"
    )
    assert memory < server.idle[2] + 150  # what a batch of long texts and its threads take


# --- servers of their own: they end, or their clock and engine are tampered with


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.timeout(240)
def test_sigterm_under_load(rounds: int, tmp_path: Path) -> None:
    """Every text that the server finished reached its client; nothing hangs; the status is 0."""
    for n in range(rounds):
        log = tmp_path / f"{n}.log"
        settings = {"log_file": log, "response_cache_mb": 4, **SETTINGS}
        with ServerProcess(f"ends-{n}", model=MODEL, **settings) as server:
            assert server.process is not None
            codes = under_load(server.url, lambda: server.process.terminate())  # type: ignore[union-attr]
            assert server.process.wait(60) == 0
            assert "Traceback" not in server.log
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        logged = Counter(line["status"] for line in lines)
        assert logged[200] == codes[200] > 0, (logged, codes)
        assert set(codes) <= {200, 503, 0}, codes
        print(f"SIGTERM under load: {dict(codes)} (0: nobody listens any more)")


def under_load(url: str, strike: Callable[[], object]) -> Counter[int]:
    """Status codes of clients that go on asking until nobody answers; 0 is no answer."""
    codes: Counter[int] = Counter()
    lock, begun = threading.Lock(), threading.Event()

    def client(number: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)  # a new connection for each request
        settings = {"base_url": url, "timeout": 60, "trust_env": False, "limits": limits}
        with httpx.Client(**settings) as http:  # type: ignore[arg-type]
            for n in range(10_000):
                body = SHORT | {"seed": 10_000 * number + n, "max_new_tokens": 40}
                try:
                    code = http.post("/generate", json=body).status_code
                except httpx.TransportError:
                    code = 0
                with lock:
                    codes[code] += 1
                if codes[200] > 20:
                    begun.set()
                if code == 0:
                    return
                if code == 503:
                    time.sleep(0.05)  # a client that hammers would only take the processor away

    with ThreadPoolExecutor(12) as pool:
        clients = [pool.submit(client, n) for n in range(12)]
        assert begun.wait(60)
        strike()
        for one in clients:
            one.result()
    return codes


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Drilled, Path]]:
    """A server whose steps fail, and whose clock jumps, as files in a folder say."""
    folder = tmp_path_factory.mktemp("faults")
    changes = {f"LLM_{name.upper()}": str(found) for name, found in SETTINGS.items()}
    changes |= {"MODEL_NAME": MODEL, "LLM_PORT": "0", "LLM_LOG_FORMAT": "off"}
    changes |= {"LLM_TOKENS_PER_MINUTE": "1000000"}
    said = (folder / "said").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.drilled", str(folder)],
        cwd=ROOT, env=os.environ | changes, stdout=said, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        text = (folder / "said").read_text
        until(lambda: " at http://" in text() or process.poll() is not None, 120)
        url = text().split(" at ")[1].split(" ")[0]
        yield drilled(url, process.pid), folder
        process.terminate()
        assert process.wait(60) in (0, 1)
    finally:
        process.kill()
        said.close()


@pytest.mark.parametrize("jump", ["86400", "-86400"])
def test_the_clock_jumps(tampered: tuple[Drilled, Path], jump: str) -> None:
    """A day ahead, a day back, with texts in the making: time limits go by another clock."""
    server, folder = tampered
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = [pool.submit(server.post, LONG) for _ in range(SLOTS)]
        until(lambda: server.running() > 0 or all(a.done() for a in answers))
        (folder / "clock").write_text(jump)
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    for answer in found:
        assert 0 < answer.json()["inference_time_seconds"] < 60
    late = server.post()
    assert late.status_code == 200
    latency = "vllm:e2e_request_latency_seconds_sum"
    assert 0 < value(server.metrics(), latency) < 3600  # no day in it
    (folder / "clock").write_text("0")


def test_memory_runs_out(tampered: tuple[Drilled, Path]) -> None:
    """Everybody still gets a text; fewer are written at the same time."""
    server, folder = tampered

    bodies = [LONG | {"temperature": 0.9, "seed": n, "max_new_tokens": 240} for n in range(6)]

    def texts(answers: list[httpx.Response]) -> list[str]:
        assert [answer.status_code for answer in answers] == [200] * len(bodies)
        return [answer.json()["generated_text"] for answer in answers]

    right = texts(server.crowd(bodies))
    for _ in range(2):  # first the kept prompts go, then half of the slots
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(server.crowd, bodies)
            until(lambda sent=sent: server.running() >= SLOTS or sent.done())
            (folder / "step").write_text("memory")
            assert texts(sent.result()) == right
        server.post()  # a step at the latest now
        assert not (folder / "step").exists()
    shown = server.metrics()
    assert value(shown, "llm_out_of_memory_total") == 2
    assert value(shown, "llm_slots") < SLOTS


def test_the_engine_dies(tampered: tuple[Drilled, Path]) -> None:
    """Every step fails: whoever waits is told, and the server says that it is of no use."""
    server, folder = tampered
    (folder / "step").write_text("broken")
    answers = server.crowd([LONG] * 6)
    assert {answer.status_code for answer in answers} <= {500, 503}
    assert all(answer.json()["error"] for answer in answers)
    until(lambda: server.post().status_code == 503)
    assert server.http.get("/health").status_code == 503
    assert server.http.get("/live").status_code == 503  # to be started anew
    assert value(server.metrics(), "llm_ready") == 0
