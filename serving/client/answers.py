"""What a server's answers are to its client: texts, pieces, events, errors, times to wait."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.client.sse import Parser

MAX_WAIT_SECONDS = 30.0


class APIError(RuntimeError):
    """The server refused or failed; the message is the server's.

    Attributes:
        status: HTTP status code.
        parameter: the parameter that was wrong, if the server named one.
    """

    def __init__(self, status: int, message: str, parameter: str | None = None) -> None:
        self.status, self.parameter = status, parameter
        super().__init__(f"HTTP {status}: {message}")


@dataclass(frozen=True)
class Answer:
    """What the server wrote.

    Attributes:
        text: the prompt and the new text.
        texts: all of them, where several were asked for.
        seconds: the server's own time for it, waiting in its queue included.
        parameters: as used, the seed included.
        metadata: model, device, token counts, time to first token, finish reason.
    """

    text: str
    texts: tuple[str, ...]
    seconds: float
    parameters: dict[str, Any]
    metadata: dict[str, Any]


@dataclass
class Pieces:
    """A streamed text: iterate over its pieces, close it to stop the server early.

    Attributes:
        metadata: as in `Answer`, once the last piece has come.
        ttft: time to first token in seconds, as this client saw it; NaN before it.
    """

    response: httpx.Response
    started: float
    metadata: dict[str, Any] = field(default_factory=dict)
    ttft: float = float("nan")

    def __iter__(self) -> Iterator[str]:
        try:
            for name, data in events(self.response):
                content = json.loads(data)
                if name == "error":
                    raise APIError(self.response.status_code, content["error"])
                if name == "done":
                    self.metadata = content["metadata"]
                    return
                if self.ttft != self.ttft:
                    self.ttft = time.perf_counter() - self.started
                yield content["text"]
            raise APIError(self.response.status_code, "the stream broke off before its end")
        finally:
            self.close()

    def close(self) -> None:
        """Hang up; the server frees the slot at its next step."""
        self.response.close()


def wait_seconds(response: httpx.Response, attempt: int) -> float:
    """How long to wait before the next try: Retry-After, else 1, 2, 4 … seconds.

    A random part keeps clients that were refused together from coming back together.
    """
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:  # missing, or a date, which this course's server never sends
        seconds = 2.0**attempt
    return min(seconds, MAX_WAIT_SECONDS) * random.uniform(1.0, 1.25)


def api_error(response: httpx.Response) -> APIError:
    """The error that a response describes, in this API's form, OpenAI's or none."""
    try:
        body = response.json()
        error = body["error"]
    except (ValueError, KeyError, TypeError):
        return APIError(response.status_code, response.text[:200])
    if isinstance(error, dict):
        return APIError(response.status_code, str(error.get("message")), error.get("param"))
    return APIError(response.status_code, str(error), body.get("parameter"))


def events(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """The server-sent events of a response as they come: (name, data)."""
    parser = Parser()
    for chunk in response.iter_bytes():
        for event in parser.feed(chunk):
            yield event.name, event.data
