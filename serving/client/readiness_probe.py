"""What the readiness checklist asks a server with. (Lesson 09.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

PATIENCE_SECONDS = 10.0  # how long something may take that happens soon
T = TypeVar("T")
SHORT: dict[str, Any] = {"prompt": "A server is", "max_new_tokens": 4, "seed": 1}


class Unticked(Exception):
    """The property was not seen; the message says what was seen instead."""


@dataclass
class Probe:
    """What the checks ask with.

    Attributes:
        http: calls the server, with the API key where there is one.
        bare: the same without a key.
        key: the API key; "" for none.
        log: the file of the server's log lines; None where nobody named it.
        stop: asks the server to end, as SIGTERM does; None where it must not.
    """

    http: httpx.Client
    bare: httpx.Client
    key: str = ""
    log: Path | None = None
    stop: Callable[[], object] | None = None

    def generate(self, **changes: Any) -> httpx.Response:
        """One small text, or what `changes` make of it."""
        return self.http.post("/generate", json=SHORT | changes)

    def logged(self) -> str:
        """All that stands in the log so far."""
        if self.log is None:
            raise Unticked("no log file was named: --log says where the lines are")
        return self.log.read_text("utf-8", "replace") if self.log.is_file() else ""

    def line(self, request_id: str) -> str:
        """The log line of a request, once it is written."""

        def written() -> str:
            lines = self.logged().splitlines()
            return next((line for line in lines if request_id in line), "")

        return soon(written, "no line with the request's id in the log")

    def metric(self, name: str) -> float | None:
        """What /metrics says of one figure, of the first model; None where it does not."""
        rows = self.http.get("/metrics").text.splitlines()
        found = [row.split()[-1] for row in rows if row.startswith(name)]
        return float(found[0]) if found else None


def soon(look: Callable[[], T], otherwise: str) -> T:
    """What `look` finds, once it finds something; `Unticked` where that does not come about."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise Unticked(otherwise)


def expect(seen: object, otherwise: str) -> None:
    """Nothing if it was seen, else `Unticked` with what to say."""
    if not seen:
        raise Unticked(otherwise)


def status(response: httpx.Response, *wanted: int) -> None:
    """Nothing if the answer has one of these status codes, else `Unticked`."""
    asked = f"{response.request.method} {response.request.url.path}"
    expect(response.status_code in wanted, f"{asked}: status {response.status_code}")


def as_object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that came back; `Unticked` where it is no JSON."""
    try:
        found = response.json()
    except ValueError:
        raise Unticked(f"{response.request.url.path} answers without JSON") from None
    return found if isinstance(found, dict) else {}
