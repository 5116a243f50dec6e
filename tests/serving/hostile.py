"""Requests that no well-behaved client sends: by the API's document, as bodies, as bare bytes.

Every request is made by hypothesis, so that the same seed sends the same ones, and one that
fails is told in its smallest form.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from multiprocessing import get_context
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

PATIENCE = 30.0  # seconds until an answer counts as one that never comes
SILENCE = 0.05  # seconds after which a client that sent half a request leaves
RIGHT = {200, 204, 400, 403, 404, 405, 411, 413, 414, 415, 421, 431}
NOT_HTTP = RIGHT | {501, 505, 0}  # a transfer coding, a version that nobody knows; 0: hung up
BIG = 2**20  # the server's limit of a body in bytes


@dataclass(frozen=True)
class Request:
    """What is written to a connection.

    Attributes:
        kind: what is wrong with it.
        content: its bytes.
        whole: whether it is a whole HTTP request, which must be answered.
    """

    kind: str
    content: bytes
    whole: bool = True

    def __repr__(self) -> str:
        start, end = self.content[:1000], self.content[1000:][-100:]
        return f"{self.kind} of {len(self.content)} bytes: {start!r} … {end!r}"


@dataclass
class Sent:
    """What was sent, and what came back.

    Attributes:
        codes: how many of each kind got each status; 0 is a connection that was closed.
    """

    url: str
    codes: dict[str, Counter[int]] = field(default_factory=dict)
    slowest: float = 0.0

    def count(self, kind: str, status: int, seconds: float) -> None:
        self.codes.setdefault(kind, Counter())[status] += 1
        self.slowest = max(self.slowest, seconds)

    @property
    def total(self) -> int:
        return sum(sum(codes.values()) for codes in self.codes.values())

    @property
    def shown(self) -> dict[str, dict[int, int]]:
        return {kind: dict(sorted(codes.items())) for kind, codes in self.codes.items()}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), PATIENCE)


def send(sent: Sent, request: Request) -> None:
    """Send it, and look at what comes back: within `PATIENCE`, of a right status, as JSON."""
    began = time.monotonic()
    method = request.content.partition(b" ")[0].decode("latin-1")
    status, kind, body = 0, "", b""
    with connect(sent.url) as line:
        with suppress(ConnectionError):  # hung up before everything was written
            line.sendall(request.content)
        with suppress(ConnectionError, HTTPException):
            heard: Any = line if request.whole else Heard(line)
            answer = HTTPResponse(heard, method=method)
            answer.begin()
            status, kind = answer.status, answer.headers.get("Content-Type", "")
            body = answer.read()
    sent.count(request.kind, status, time.monotonic() - began)
    assert status in (RIGHT if request.whole else NOT_HTTP), (request, status, body[:300])
    if status >= 400 and method != "HEAD":
        check_error(request, kind, body)


class Heard:
    """All that a server says to a client that sends no more, and leaves at the first silence."""

    def __init__(self, line: socket.socket) -> None:
        self._found, piece = b"", b"-"
        line.settimeout(SILENCE)
        while piece:
            try:
                piece = line.recv(65536)
                self._found += piece
            except TimeoutError:
                if line.gettimeout() == PATIENCE:
                    raise  # neither an answer nor an end
                line.settimeout(PATIENCE)
                with suppress(OSError):  # reset meanwhile
                    line.shutdown(socket.SHUT_WR)

    def makefile(self, mode: str) -> BytesIO:
        """As a socket gives it to the reader of an answer."""
        return BytesIO(self._found)


def check_error(request: object, kind: str, body: bytes) -> None:
    assert kind == "application/json" and json.loads(body)["error"], (request, kind, body[:300])


def drive(
    strategy: st.SearchStrategy[Any], count: int, number: int, use: Callable[..., None]
) -> None:
    """Make so many examples, or as many as there are, and use each once."""
    checks = list(HealthCheck)
    phases = [Phase.generate, Phase.shrink]

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=phases,
              suppress_health_check=checks)  # fmt: skip
    @given(strategy)
    def run(example: Any) -> None:
        use(example)

    run()


# --- by the API's own document


def documented(sent: Sent, count: int, number: int) -> None:
    """Requests to every route as /openapi.json allows and forbids them."""
    found: Any = schemathesis.openapi.from_url(f"{sent.url}/openapi.json")
    operations = [operation.ok() for operation in found.get_all_operations()]
    writing = [o for o in operations if o.method == "post" and o.body]

    def use(mode: str, case: schemathesis.Case) -> None:
        answer = case.call(base_url=sent.url, timeout=PATIENCE)
        sent.count(f"documented, {mode}", answer.status_code, answer.elapsed)
        assert answer.status_code in RIGHT, (case.as_curl_command(), answer.text[:300])
        if answer.status_code >= 400:
            kind = answer.headers["content-type"][0]
            check_error(case.as_curl_command(), kind, answer.content)

    for operation in operations:
        share = count // (2 * len(writing)) if operation in writing else 20
        for mode in schemathesis.GenerationMode:
            with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
                strategy = operation.as_strategy(generation_mode=mode)
                drive(strategy, share, number, partial(use, mode.value))


# --- bodies


def names(document: dict[str, Any]) -> list[str]:
    """Every parameter that any route takes."""
    shapes = document["components"]["schemas"].values()
    return sorted({name for shape in shapes for name in shape.get("properties", {})})


def values(known: list[str]) -> st.SearchStrategy[Any]:
    """Any JSON value, with parameters' names in the place of any keys."""
    odd = st.sampled_from(["<|endoftext|>", "\x00", "\ud800", "🎉" * 50, "́" * 300, "‮", "NaN", ""])
    numbers = st.integers() | st.floats() | st.sampled_from([2**31, -(2**63), 10**400, 1e308, -0.0])
    simple = st.none() | st.booleans() | numbers | st.text(max_size=40) | odd
    keys = st.sampled_from(known) | st.text(max_size=8) | odd

    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=6)

    return st.recursive(simple, deeper, max_leaves=12)


def written(value: Any, ascii_only: bool, encoding: str) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode(encoding, "replace")


def large() -> st.SearchStrategy[bytes]:
    """Bodies about as large as a server takes, and larger, and deeper than a parser goes."""
    sizes = st.sampled_from([1000, 50_000, BIG - 20, BIG, BIG + 1, 3 * BIG])
    pieces = st.sampled_from([b"[", b'{"prompt":', b"9", b'"', b" ", b'"\\ud8', b'{"a":[', b"\xff"])
    repeated = st.builds(lambda piece, size: piece * (size // len(piece)), pieces, sizes)
    frames = st.sampled_from([(b"", b""), (b'{"prompt": "', b'"}'), (b'{"seed": ', b"}"),
                              (b'{"prompt": "x", "stop": [', b"]}")])  # fmt: skip
    return st.builds(lambda frame, inner: frame[0] + inner + frame[1], frames, repeated)


def contents(known: list[str]) -> st.SearchStrategy[bytes]:
    """What may stand in a body."""
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-7"])
    texts = st.dictionaries(st.sampled_from(known), values(known), max_size=8).flatmap(
        lambda more: st.sampled_from([more, {"prompt": "The", **more}, {"messages": [], **more}])
    )
    json_bytes = st.builds(written, texts | values(known), st.booleans(), encodings)
    cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], json_bytes, st.integers(0, 200))
    twice = st.builds(lambda a, b: a + b, json_bytes, json_bytes)
    return json_bytes | cut | twice | st.binary(max_size=200) | json_bytes.map(gzip.compress)


def bodies(sent: Sent, known: list[str], paths: list[str]) -> st.SearchStrategy[Request]:
    """Whole requests whose path, method, headers and body do not fit each other."""
    host = urlsplit(sent.url).netloc
    kinds = ["application/json"] * 6 + ["", "text/plain", "multipart/form-data; boundary=x", "\xe9",
             "application/x-www-form-urlencoded", "application/json; charset=utf-16",
             "application/vnd.x+json", "application/json;;;=", "*/*"]  # fmt: skip
    more = ["", "Content-Encoding: gzip\r\n", "Accept: text/event-stream\r\n", "Cookie: a=\xff\r\n",
            "Authorization: Bearer \r\n", "X-Request-ID: \x7f{}\r\n", "Range: bytes=0-\r\n",
            "X-Forwarded-For: 1.2.3.4, x\r\n", "traceparent: 00-zz\r\n"]  # fmt: skip
    methods = ["POST"] * 8 + "PUT PATCH DELETE HEAD OPTIONS PROPFIND post".split() + ["A" * 99]

    def build(method: str, path: str, kind: str, header: str, body: bytes) -> Request:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        head += (f"Content-Type: {kind}\r\n" if kind else "") + header + "\r\n"
        return Request("a body", head.encode("latin-1") + body)

    found = contents(known)
    return st.builds(
        build, st.sampled_from(methods), st.sampled_from(paths), st.sampled_from(kinds),
        st.sampled_from(more), st.integers(0, 24).flatmap(lambda n: large() if n == 24 else found),
    )  # fmt: skip


# --- bare bytes

LINES = (  # request lines, odd or wrong
    *("GET  /health HTTP/1.1", "GET /health", "GET", "", "GET /health HTTP/9.9", "\x00\x01\x02"),
    *("GET /health HTTP/1.1 HTTP/1.1", "get /health HTTP/1.1", "GET \\health HTTP/1.1", "🎉 / x"),
    *("GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT a:1 HTTP/1.1", "TRACE / HTTP/1.1"),
    *("GET http://[::1/ HTTP/1.1", "GET http://evil.example/health HTTP/1.1", "GET ?x HTTP/1.1"),
    *("GET /%00 HTTP/1.1", "GET /%ff%fe HTTP/1.1", "GET /../../etc/passwd HTTP/1.1", "GET / HTTP"),
    *("GET /v1/models/%2e%2e%2f HTTP/1.1", "GET /info?model=%zz&model HTTP/1.1", "GET /a b HTTP/1"),
    *("PRI * HTTP/2.0", "GET /health HTTP/1.0", "GET /health\tHTTP/1.1", "GET // HTTP/1.1"),
    "GET /" + "a" * 9000 + " HTTP/1.1", "GET /info?" + "model=x&" * 2000 + " HTTP/1.1",
)  # fmt: skip
HEADERS = (  # odd or wrong ones
    *("Content-Length: -1", "Content-Length: x", "Content-Length: 1e3", "Content-Length: 5, 6"),
    *("Content-Length: 9" + "9" * 30, "Content-Length: " + "9" * 5000, "Content-Length:"),
    *("Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: gzip", "Transfer-Encoding: ,"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
    *("Host: evil.example", "Host: a\r\nHost: b", "Host:", "Host: [::1", "Host: " + "h" * 3000),
    *(" folded: x", "no colon", ": no name", "n\x00ll: x", "Na me: x", "X: a\x00b", "X: a\rb"),
    *("Expect: 100-continue", "Expect: tea", "Upgrade: websocket\r\nConnection: Upgrade"),
    *("Connection: close, keep-alive", "Content-Type: " + ";" * 5000, "A: " + "b" * 300_000),
    "\r\n".join(f"X-{n}: y" for n in range(2000)), "X-Request-ID: \r\n\tx", "é: ü",
)  # fmt: skip
BODIES = (  # with lengths that are wrong, or in chunks that are
    *(b"", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\nhello\r\n", b"-5\r\nhello\r\n0\r\n\r\n"),
    *(b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"fffffffffffffffff\r\nx", b"5\nhello\n0\n\n"),
    *(b"5\r\nhelloX\r\n0\r\n\r\n", b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n", b"\x00" * 100, b"5"),
    b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
)  # fmt: skip
STRANGE = (  # no HTTP at all
    b"", b"\r\n" * 50, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff" * 4000, b"EHLO x\r\n", b"\n\n",
    b"GET / HTTP/1.1\r\n" + b"a" * 300_000,
)  # fmt: skip


def raw() -> st.SearchStrategy[Request]:
    """Bytes that are nearly a request, or are none."""
    good = st.sampled_from(["GET /health HTTP/1.1", "POST /generate HTTP/1.1"])
    lines = good | st.sampled_from(LINES) | st.text(max_size=60)
    heads = st.lists(st.sampled_from(HEADERS) | st.text(max_size=30), max_size=3)
    ends = st.sampled_from(["\r\n"] * 4 + ["\n", "\r", "\n\r"])

    def build(line: str, head: list[str], end: str, body: bytes) -> Request:
        text = end.join([line, *head, "", ""])
        return Request("bare bytes", text.encode("utf-8", "replace") + body, whole=False)

    several = st.builds(build, lines, heads, ends, st.sampled_from(BODIES) | st.binary(max_size=99))
    head = b"POST /generate HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    halves = st.integers(1, 100).map(lambda at: (head + b'{"prompt')[:at])
    others = st.sampled_from(STRANGE) | st.binary(max_size=300) | halves
    return several | others.map(lambda content: Request("bare bytes", content, whole=False))


# --- all of them


def _documented(url: str, count: int, number: int) -> Sent:
    sent = Sent(url)
    documented(sent, count, number)
    return sent


def _bodies(url: str, count: int, number: int) -> Sent:
    sent, document = Sent(url), schemathesis.openapi.from_url(f"{url}/openapi.json").raw_schema
    writing = [path for path, methods in document["paths"].items() if "post" in methods]
    paths = [*document["paths"], "/nothing", *writing * 4]
    drive(bodies(sent, names(document), paths), count, number, partial(send, sent))
    return sent


def _raw(url: str, count: int, number: int) -> Sent:
    sent = Sent(url)
    drive(raw(), count, number, partial(send, sent))
    return sent


def attack(url: str, count: int, number: int) -> Sent:
    """At least so many requests, three kinds at the same time.

    Each kind has a process: hypothesis parses Python, which CPython 3.11 cannot in several
    threads at once ("AST constructor recursion depth mismatch").

    Args:
        url: of the server.
        count: how many.
        number: another one makes other requests.

    Returns:
        what was sent, and what came back; an answer that is wrong raises AssertionError.
    """
    sent, share = Sent(url), -(-count // 3)
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        for job in [pool.submit(kind, url, share, number) for kind in (_documented, _bodies, _raw)]:
            found = job.result()
            sent.codes |= found.codes
            sent.slowest = max(sent.slowest, found.slowest)
    return sent
