"""One record a request: what became of it, told to the metrics and the log at its end. (Lesson 09.)

A request ends when its answer has been sent, or when its client has left: a stream's record
holds the whole stream.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flask import Flask, Response, g, request

from serving.engine.jobs import Job
from serving.models import Models
from serving.service import Service

log = logging.getLogger(__name__)
ID_HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")  # nothing that could break a line of a log
# How a text ended, where that makes its request one that failed.
_FAILED = {
    "timeout": "timeout",
    "error": "generation_failed",
    "shutdown": "not_ready",
    "structure": "bad_request",
    "cancelled": "client_gone",
    "": "client_gone",  # the answer is over, and the text was not yet
}


@dataclass
class Record:
    """What is known of a request.

    Attributes:
        id: the client's own X-Request-ID, or a new one.
        method: such as POST.
        path: as it was asked for.
        route: the rule that it matched, such as /v1/models/<name:name>; "" for none.
        status: of the answer.
        at: Unix time of its beginning in seconds.
        began: time.perf_counter() of its beginning.
        seconds: from there to the end of the answer.
        error: the kind of error; "" for none.
        service: the model that it was for, once that was found.
        job: the texts that it asked for.
        cached: it was answered from the response cache.
        traceparent: what the caller's own trace says of itself, as W3C's header has it.
        client: whose key it came with, as a short digest; "" without keys.
    """

    id: str
    method: str
    path: str
    route: str
    status: int = 0
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    error: str = ""
    service: Service | None = None
    job: Job | None = None
    cached: bool = False
    client: str = ""
    traceparent: str = ""

    def end(self) -> None:
        """The answer is over."""
        self.seconds = time.perf_counter() - self.began
        for row in self.job.sequences if self.job else ():
            self.error = self.error or _FAILED.get(row.finish_reason, "")


def current() -> Record:
    """The record of the request that is being handled."""
    record: Record = g.record
    return record


def pick(models: Models, name: str | None = None) -> Service:
    """The model that the request is for; it stays loaded until the request is over.

    Raises:
        NotReadyError, QueueFullError, UnknownModelError: as `Models.pick`.
    """
    service = current().service = models.pick(name)
    return service


def request_id() -> str:
    """The client's own, where it is short and of harmless characters; else a new one."""
    given = request.headers.get(ID_HEADER, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def keep_records(app: Flask, models: Models, tell: Sequence[Callable[[Record], None]]) -> None:
    """Keep a record of each request, and tell it at the end.

    Args:
        app: the application; to be called before anything else looks at a request.
        models: the server's.
        tell: what is called with every record; a failure of it harms no request.
    """

    @app.before_request
    def _begin() -> None:
        rule = request.url_rule
        g.record = Record(request_id(), request.method, request.path, rule.rule if rule else "")
        g.record.traceparent = request.headers.get("traceparent", "")

    @app.after_request
    def _answered(response: Response) -> Response:
        record = current()
        record.status, record.error = response.status_code, g.get("error_kind", "")
        response.headers[ID_HEADER] = record.id
        response.call_on_close(lambda: _end(record))
        return response

    def _end(record: Record) -> None:
        record.end()
        for listener in tell:
            try:
                listener(record)
            except Exception:
                log.exception("a request was not counted")
        if record.service:
            models.put_back(record.service)
