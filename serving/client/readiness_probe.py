"""What the readiness checklist asks a server with. (Lesson 09.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PATIENCE_SECONDS = 10.0  # how long something may take that happens soon
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

    def line(self, request_id: str) -> str:
        """The log line of a request, once it is written."""
        expect(self.log is not None, "no log file was named: --log says where the lines are")
        assert self.log is not None
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            lines = (
                self.log.read_text("utf-8", "replace").splitlines() if self.log.is_file() else []
            )
            if found := next((line for line in lines if request_id in line), ""):
                return found
            time.sleep(0.05)
        raise Unticked(f"no line with the request's id in {self.log.name}")


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
