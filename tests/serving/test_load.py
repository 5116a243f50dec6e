"""The load test, against servers that do what the test says: what it counts, and when it sends."""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving.client import Client, ServerProcess, load_test
from serving.client.load_test import Load, Report, Result, arrivals, run
from tests.conftest import ROOT

Answer = Callable[[int, "Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each completion, counted from 0, to the test's own function."""

    answer: Answer
    asked: list[tuple[str, str | None, dict[str, Any]]]  # path, key, body
    count = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            number = type(self).count
            type(self).count += 1
            type(self).asked.append((self.path, self.headers.get("Authorization"), body))
        type(self).answer(number, self)

    def do_GET(self) -> None:
        self.begin()
        self.wfile.write(json.dumps({"data": [{"id": "told"}, {"id": "other"}]}).encode())

    def begin(self, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def piece(self, text: str, **more: Any) -> None:
        block = {"choices": [{"text": text, "finish_reason": None}]} | more
        self.wfile.write(f"data: {json.dumps(block, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def done(self, tokens: int) -> None:
        self.piece("", choices=[], usage={"completion_tokens": tokens})
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # that connect at the same moment


@contextmanager
def serving(answer: Answer, asked: list[Any] | None = None) -> Iterator[str]:
    """A server's address; what it is asked is kept in `asked`: path, key and body."""
    values = {"answer": staticmethod(answer), "count": 0, "asked": [] if asked is None else asked}
    handler = type("Planned", (Handler,), values)
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def load(url: str, **settings: Any) -> Report:
    return run(Load(url, model="planned", **{"timeout": 60.0, **settings}))


def test_percentiles_of_a_run_in_which_two_of_twenty_are_slow() -> None:
    """The slow ones are answered some time after all others have been."""
    others = threading.Semaphore(0)

    def answer(number: int, to: Handler) -> None:
        to.begin()
        to.piece("a")
        if number < 2:
            for _ in range(9):
                others.acquire()
            time.sleep(0.5)
        to.done(2)
        others.release()

    with serving(answer) as url:
        report = load(url, requests=20, clients=20)
    times = sorted(r.seconds for r in report.good)
    found = report.summary()["latency"]
    assert len(times) == 20
    assert found["p50"] < found["p95"]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    exact = {"mean": statistics.fmean(times), "p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
    assert found == pytest.approx(exact, abs=1.1e-5)
    line = next(row for row in report.table().splitlines() if row.startswith("latency"))
    shown = [float(number) for number in line.split()[1:]]
    assert shown == pytest.approx([1000 * s for s in exact.values()], abs=0.11)
    head = next(row for row in report.table().splitlines() if "p95" in row)
    assert head.split() == ["milliseconds", "mean", "p50", "p95", "p99"]


def test_the_first_token_is_the_first_and_a_token_takes_the_time_after_it() -> None:
    report = Report(Load(""), 1.0, [Result(0, 5.0, ttft=1.0, tokens=5), Result(0, 1, 0.5, 1)])
    assert report.results[0].per_token == 1.0 and math.isnan(report.results[1].per_token)
    summary = report.summary()
    assert summary["time_per_output_token"]["mean"] == 1.0
    assert summary["time_to_first_token"]["mean"] == 0.75

    heard = threading.Event()

    class Told(load_test._Answer):
        def take(self, data: str, now: float) -> None:
            super().take(data, now)
            first.append(self.ttft)
            heard.set()

    def answer(number: int, to: Handler) -> None:
        to.begin()
        to.piece("first")
        heard.wait(30)  # the second piece is written when the first has been read
        to.piece("second")
        to.done(2)

    first: list[float] = []
    with pytest.MonkeyPatch.context() as patch, serving(answer) as url:
        patch.setattr(load_test, "_Answer", Told)
        (result,) = load(url, requests=1).results
    assert result.ttft == first[0] < result.seconds


def test_failed_requests_count_by_kind_and_their_tokens_do_not() -> None:
    """Every third is answered; the others fail after they have sent tokens, in every way."""
    failures: list[tuple[str, Callable[[Handler], object]]] = [
        ("stream broke off", lambda to: None),
        ("error in the stream", lambda to: to.piece("", error={"message": "no"})),
        ("malformed stream", lambda to: to.wfile.write(b"data: {\n\n")),
        ("malformed stream", lambda to: to.wfile.write(b"data: [1]\n\n")),
    ]

    def answer(number: int, to: Handler) -> None:
        if number == 8:
            to.begin(503)
            return
        to.begin()
        to.piece("a", usage={"completion_tokens": 1000})
        to.piece("b")
        if number % 2:
            to.done(7)
        else:
            failures[number // 2][1](to)

    with serving(answer) as url:
        report = load(url, requests=9, clients=1)
    summary = report.summary()
    assert summary["requests"] == 9 and len(report.good) == 4
    assert summary["tokens"] == 4 * 7
    assert summary["tokens_per_second"] == pytest.approx(28 / report.seconds, rel=0.01)
    assert summary["requests_per_second"] == pytest.approx(4 / report.seconds, rel=0.01)
    kinds = {"stream broke off": 1, "error in the stream": 1, "malformed stream": 2, "HTTP 503": 1}
    assert summary["errors"] == kinds
    bad = [r for r in report.results if r.error]
    slow = Report(report.load, report.seconds, [*report.good, *(b for b in bad)])
    assert slow.summary()["latency"] == Report(report.load, 1.0, report.good).summary()["latency"]
    kept = json.loads(report.to_json())
    assert [r["ttft"] for r in kept["results"] if r["error"] == "HTTP 503"] == [None]


def test_pieces_are_counted_where_a_server_counts_no_tokens() -> None:
    def answer(number: int, to: Handler) -> None:
        to.begin()
        to.piece("one\u2028still one")
        to.piece("two")
        to.piece("", choices=[{"text": "", "finish_reason": "stop"}])  # and no [DONE]

    with serving(answer) as url:
        (result,) = load(url, requests=1).results
    assert (result.error, result.tokens) == ("", 2)


def lengths(**settings: Any) -> list[int]:
    asked = load_test.bodies(Load("", requests=4000, **settings), "m")
    return [body["max_tokens"] for body in asked]


def test_lengths_are_drawn_from_the_whole_range() -> None:
    even = lengths(min_tokens=3, max_tokens=6)
    assert all(even.count(n) == pytest.approx(1000, rel=0.15) for n in (3, 4, 5, 6))
    skewed = lengths(min_tokens=4, max_tokens=256, skewed=True)
    assert min(skewed) == 4 and max(skewed) == 256
    logs = [math.log2(n) for n in skewed]  # evenly from 2 to 8
    assert statistics.fmean(logs) == pytest.approx(5, abs=0.1)
    assert statistics.stdev(logs) == pytest.approx(6 / math.sqrt(12), rel=0.05)
    assert set(lengths(min_tokens=7, max_tokens=7)) == {7}


def test_what_is_sent_is_what_the_load_says() -> None:
    asked: list[Any] = []
    ended: list[int] = []
    planned = Load("", "m", requests=40, clients=1, seed=5, parameters={"top_p": 0.5})

    def answer(number: int, to: Handler) -> None:
        to.begin()
        to.piece("a")
        to.done(1)

    with serving(answer, asked) as url:
        chosen = replace(planned, url=url, ignore_end=True)
        report = run(chosen, lambda: ended.append(len(asked)), api_key="secret")
        run(Load(url, requests=1), api_key="")
    *sent, last = asked
    assert [(path, key) for path, key, _ in sent] == [("/v1/completions", "Bearer secret")] * 40
    found = [body for _, _, body in sent]
    assert found == load_test.bodies(chosen, "m") and report.load == chosen
    assert ended == list(range(1, 41)), "progress is told at the end of every request"
    started = [one.started for one in report.results]
    assert started == sorted(started) and started[-1] + report.results[-1].seconds < report.seconds
    usual = {"model": "m", "stream": True, "temperature": 0.8, "max_tokens": 32, "top_p": 0.5}
    usual |= {"stream_options": {"include_usage": True}}
    prompts = set()
    for number, body in enumerate(found):
        prompts.add(body.pop("prompt"))
        assert body == usual | {"ignore_eos": True, "seed": 5 + number}
    assert prompts == set(load_test.PROMPTS)
    other = load_test.bodies(planned, "m")
    assert "ignore_eos" not in other[0] and other == load_test.bodies(planned, "m")
    assert other != load_test.bodies(replace(planned, seed=6), "m")
    assert (last[1], last[2]["model"]) == (None, "told"), "the server's first model, and no key"


def test_a_server_that_is_silent_and_one_that_is_gone() -> None:
    over = threading.Event()

    def answer(number: int, to: Handler) -> None:
        over.wait(60)

    with serving(answer) as url:
        (late,) = load(url, requests=1, timeout=0.5).results
        over.set()
    assert (late.error, late.tokens) == ("timeout", 0) and math.isnan(late.ttft)
    assert late.seconds >= 0.5
    (gone,) = load(url, requests=1).results
    assert gone.error == "ConnectError"


def test_a_text_of_no_characters_has_its_first_token_at_its_end() -> None:
    """A token may be half a character: nothing is seen before the end."""
    read = load_test._Answer()
    for now, block in enumerate(
        [
            {"choices": [{"text": "", "finish_reason": None}]},
            {"choices": [{"text": "", "finish_reason": "length"}]},
            {"choices": [], "usage": {"completion_tokens": 1}},
            {},
        ],
        start=1,
    ):
        read.take(json.dumps(block), float(now))
    assert (read.ttft, read.pieces, read.tokens, read.ended) == (2.0, 0, 1, True)
    read = load_test._Answer()
    read.take(json.dumps({"error": "no"}), 1.0)
    assert read.error == "error in the stream" and not read.ended
    read.take("[DONE]", 2.0)
    assert read.ended


def test_an_open_load_does_not_wait_for_answers() -> None:
    """Nothing is answered before all twelve are there: two clients would wait for ever."""
    there = threading.Barrier(12)

    def answer(number: int, to: Handler) -> None:
        there.wait(30)
        to.begin()
        to.done(1)

    with serving(answer) as url:
        report = load(url, requests=12, clients=2, rate=50.0)
    assert not report.summary()["errors"] and len(report.good) == 12
    sent = sorted(r.started for r in report.results)
    assert all(s >= due - 0.005 for s, due in zip(sent, arrivals(report.load), strict=True))


def test_a_closed_load_has_so_many_requests_on_the_way() -> None:
    lock, running, most = threading.Lock(), [0], [0]
    three = threading.Barrier(3)  # answers go out by threes: fewer clients would never get one

    def answer(number: int, to: Handler) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        three.wait(30)
        with lock:
            running[0] -= 1
        to.begin()
        to.done(1)

    with serving(answer) as url:
        report = load(url, requests=9, clients=3)
    assert len(report.good) == 9 and most[0] == 3


@pytest.mark.parametrize("rate", [0.5, 4.0, 300.0])
def test_arrivals_have_the_asked_rate_and_come_by_chance(rate: float) -> None:
    times = arrivals(Load("", requests=20_000, rate=rate, seed=3))
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert times[0] == 0 and min(gaps) >= 0
    assert statistics.fmean(gaps) * rate == pytest.approx(1, rel=0.03)
    assert statistics.stdev(gaps) * rate == pytest.approx(1, rel=0.05)  # a Poisson process
    assert times == arrivals(Load("", requests=20_000, rate=rate, seed=3))
    assert times != arrivals(Load("", requests=20_000, rate=rate, seed=4))


def test_the_command_line_passes_every_setting_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[Load] = []

    def keep(load: Load, progress: object) -> Report:
        sent.append(load)
        return Report(load, 1.0, [Result(0, 1.0, 0.5, 3)])

    monkeypatch.setattr(load_test, "run", keep)
    given = "http://[::1]:1/v1 --model m --requests 3 --clients 2 --rate 2.5 --tokens 4-9 --seed 5"
    given += f" --ignore-end --timeout 7 --json {tmp_path / 'out.json'}"
    assert load_test.main(given.split()) == 0
    wanted = Load("http://[::1]:1", "m", 3, 2, 2.5, 4, 9, False, True, 5, 7.0)
    assert sent == [wanted]
    assert json.loads((tmp_path / "out.json").read_text())["load"]["rate"] == 2.5


HELP = """
usage: python -m serving.client.load_test [-h] [--model MODEL] [--requests REQUESTS]
[--clients CLIENTS] [--rate RATE] [--tokens TOKENS] [--ignore-end] [--seed SEED]
[--no-seeds] [--timeout TIMEOUT] [--json JSON] url
Load an OpenAI-compatible server and measure its answers.
positional arguments: url the server, such as http://127.0.0.1:5000
options: -h, --help show this help message and exit
--model MODEL as the server names it (asks /v1/models)
--requests REQUESTS
--clients CLIENTS closed load: at the same time
--rate RATE open load: requests a second
--tokens TOKENS new tokens, or a range such as 8-128
--ignore-end ask for full lengths
--seed SEED
--no-seeds for servers that take none
--timeout TIMEOUT seconds
--json JSON write settings, summary and requests there
LLM_API_KEY in the environment is sent to servers that want a key.
"""


def test_the_command_line_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        load_test.main(["--help"])
    assert ended.value.code == 0 and capsys.readouterr().out.split() == HELP.split()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--tokens x", "--tokens 'x': a number, or a range such as 8-128"),
        ("--tokens 8-x", "--tokens '8-x': a number, or a range such as 8-128"),
        ("--tokens 9-8", "--tokens '9-8': a number, or a range such as 8-128"),
        ("--tokens 0", "--tokens '0': a number, or a range such as 8-128"),
        ("--requests 0", "--requests and --clients are at least 1, --rate is not negative"),
        ("--clients 0", "--requests and --clients are at least 1, --rate is not negative"),
        ("--rate -1", "--requests and --clients are at least 1, --rate is not negative"),
    ],
)
def test_wrong_usage_is_one_line(
    given: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_test, "run", lambda load, progress: Report(load, 1.0, []))
    with pytest.raises(SystemExit) as ended:
        load_test.main(["http://x", *given.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {said}")


def test_what_a_command_line_leaves_out_is_as_load_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Load] = []

    def keep(load: Load, progress: Callable[[], object]) -> Report:
        sent.append(load)
        for _ in range(load.requests):
            progress()
        return Report(load, 1.0, [Result(0, 1.0, 0.5, 3, "timeout"[: 7 * (load.clients == 1)])])

    monkeypatch.setattr(load_test, "run", keep)
    assert load_test.main(["http://x/v1/"]) == 0
    plain = Load("http://x", min_tokens=32, max_tokens=32)
    assert sent == [plain] and (plain.requests, plain.clients, plain.timeout) == (64, 8, 120.0)
    said = capsys.readouterr()
    assert "64/64" in said.err and "request/s" in said.err and "100%" in said.err
    assert said.out == Report(plain, 1.0, [Result(0, 1.0, 0.5, 3)]).table() + "\n"
    assert load_test.main("http://x --requests 1 --clients 1 --tokens 1-1".split()) == 1
    assert sent[1] == Load("http://x", requests=1, clients=1, min_tokens=1, max_tokens=1)


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert load_test.main([url]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"no OpenAI-compatible server answers at {url}: ") and "None" not in last


PROXIES = [
    {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
    {"all_proxy": "socks://proxy.example:1080", "ALL_PROXY": "socks://proxy.example:1080"},
    {"http_proxy": "socks5://proxy.example:1080"},
    {"http_proxy": "http://[nonsense", "https_proxy": "nonsense://"},
]


def lines_that_connect() -> list[str]:
    """The lines of lesson 06 and its solutions that make clients of their own."""
    wanted = ("direct =", "http =", "address, key =", "caller =", "ai =")
    found = []
    for book in ("06_serving.ipynb", "solutions/06_serving.ipynb"):
        cells = json.loads((ROOT / "notebooks" / book).read_text(encoding="utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        lines = [line.strip() for source in sources for line in source.splitlines()]
        found += [line for line in lines if line.startswith(wanted)]
    return found


@pytest.mark.parametrize("proxies", PROXIES, ids=lambda p: next(iter(p.values())))
def test_no_proxy_stands_before_this_machine(
    proxies: dict[str, str], server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with Client(server.url, retries=0) as client:
        assert client.wait_until_ready(30)["status"] == "healthy"
    assert run(Load(server.url, requests=1)).summary()["errors"] == {}
    lines = lines_that_connect()
    assert len(lines) == 9 and sum("Client(" in line for line in lines) == 5
    names: dict[str, Any] = {"httpx": httpx, "openai": openai, "server": server}
    names |= {"Client": Client, "url": server.url, "exercise": server}  # of the exercises
    for line in lines:
        exec(line, names)
        if line.startswith("http ="):
            assert names["http"].get("/health").status_code == 200
    assert [model.id for model in names["ai"].models.list()] == ["course-gpt-1m"]


def test_other_machines_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a server elsewhere gets the proxy that the environment names."""
    asked = threading.Event()

    def answer(number: int, to: Handler) -> None:
        asked.set()
        to.begin()
        to.wfile.write(json.dumps({"status": "healthy", "via": to.path}).encode())

    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with serving(answer) as url:
        monkeypatch.setenv("http_proxy", url)
        with Client("http://server.example:5000", retries=0) as client:
            said = client._http.post("/health", json={}).json()
    assert asked.is_set() and said["via"] == "http://server.example:5000/health"
