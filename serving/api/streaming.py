"""Waiting for a job: until it is done, or piece by piece, and noticing clients that left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, request

from serving.engine.jobs import Job, Update
from serving.guard.records import current

SSE = "text/event-stream"


class ClientGoneError(Exception):
    """Nobody is there to read the answer."""


def _gone(job: Job) -> Callable[[], bool]:
    """Whether the client has hung up, as waitress knows it; the job is the request's from now."""
    current().job = job
    return request.environ.get("waitress.client_disconnected", lambda: False)


def wait(job: Job) -> None:
    """Wait until every sequence of the job has ended.

    Raises:
        ClientGoneError: the client has hung up; the job is cancelled.
        TimeLimitError, NotReadyError, SequenceError: as `Job.updates`.
    """
    gone = _gone(job)
    try:
        for update in job.updates():
            if update is None and gone():
                raise ClientGoneError
    finally:
        job.cancel()  # what already ended does not mind


def pieces(job: Job) -> Callable[[], Iterator[Update]]:
    """The job's updates as they come; closing the iterator cancels the job.

    To be called while the request is handled; the function it returns may run later.
    """
    gone = _gone(job)

    def iterate() -> Iterator[Update]:
        try:
            for update in job.updates():
                if update is not None:
                    yield update
                elif gone():
                    return
        finally:
            job.cancel()

    return iterate


def event(data: Any, name: str = "") -> str:
    """One server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"


def stream(job: Job, chunks: Iterator[str], kind: str) -> Response:
    """A response that is sent chunk by chunk; the job ends with it at the latest."""
    response = Response(chunks, mimetype=kind)
    response.call_on_close(job.cancel)  # also where the client left before the first chunk
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # asks nginx not to collect the pieces
    response.headers["Vary"] = "Accept"
    return response
