"""One line a request: JSON for machines, a readable line in a terminal. (Lesson 09.)

Lines are written by a thread of their own, from a bounded queue: a disk that is full, a pipe that
nobody reads or that was closed costs lines, which are counted, and holds up no request. Headers,
keys and, unless it is switched on, what was asked and answered never stand in a line.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

from serving.config import Config
from serving.guard.records import Record

QUEUE_LINES = 10_000
QUIET = {"/health", "/live", "/metrics"}  # asked every few seconds, and no news where they succeed


def open_log(path: str) -> int:
    """The descriptor that lines go to; "" is standard error.

    Raises:
        OSError: the file cannot be written.
    """
    if not path:
        return 2
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


class RequestLog:
    """The lines of one server."""

    def __init__(self, config: Config, lost: Callable[[], object]) -> None:
        """No line yet; the thread starts with the first.

        Args:
            config: says what is logged, and where.
            lost: called for every line that could not be written.
        """
        self._config, self._lost = config, lost
        self._json = config.log_format == "json"
        if config.log_format == "auto":
            self._json = bool(config.log_file) or not (sys.stderr and sys.stderr.isatty())
        self._lines: queue.Queue[bytes] = queue.Queue(QUEUE_LINES)
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, record: Record) -> None:
        """Log a request that is over."""
        config = self._config
        quiet = record.route in QUIET and record.status < 400 and not config.debug
        if config.log_format == "off" or quiet:
            return
        said = self.fields(record)
        line = json.dumps(said) if self._json else readable(said)
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
                _logs.add(self)
        try:
            self._lines.put_nowait(line.encode("utf-8", "backslashreplace") + b"\n")
        except queue.Full:  # whoever should read the lines has stopped
            self._lost()

    def fields(self, record: Record) -> dict[str, Any]:
        """What is logged of a request; times in seconds."""
        at = datetime.fromtimestamp(record.at, UTC)
        said: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "request_id": record.id,
            "method": record.method[:20],
            "route": record.route or record.path[:200],
            "status": record.status,
            "total_seconds": round(record.seconds, 4),
        }
        if record.client:
            said["client"] = record.client
        if record.cached:
            said["cached"] = True
        if record.error:
            said["error"] = record.error
        if record.job and record.service:
            rows = record.job.sequences
            first = [row.ttft for row in rows if row.first_token]
            queued = [row.started - row.job.created for row in rows if row.started]
            said |= {
                "model": record.service.model,
                "prompt_tokens": sum(row.prompt_tokens for row in rows),
                "cached_tokens": sum(row.cached_tokens for row in rows),
                "output_tokens": sum(row.new_tokens for row in rows),
                "queue_seconds": round(max(queued), 4) if queued else None,
                "first_token_seconds": round(min(first), 4) if first else None,
                "finish_reason": ",".join(sorted({row.finish_reason for row in rows})),
            }
            if self._config.log_prompts:
                decode = record.service.tokenizer.decode
                said["prompts"] = [decode(row.ids[: row.prompt_tokens]) for row in rows]
                said["texts"] = [row.text for row in rows]
        return said

    def _work(self) -> None:
        target, torn = -1, False
        while True:
            line = self._lines.get()
            try:
                if target < 0:
                    target = open_log(self._config.log_file)
                left = b"\n" + line if torn else line  # after half a line begins a new one
                while left:
                    written = os.write(target, left)
                    torn, left = True, left[written:]
                torn = False
            except OSError:
                self._lost()
            finally:
                self._lines.task_done()

    def flush(self, seconds: float) -> None:
        """Wait until every line is written, but no longer than this."""
        waiter = threading.Thread(target=self._lines.join, daemon=True)
        waiter.start()
        waiter.join(seconds)


_logs: WeakSet[RequestLog] = WeakSet()


def flush_logs(seconds: float = 2.0) -> None:
    """Write what is still to be written, before the process ends."""
    for log in list(_logs):
        log.flush(seconds)


def readable(said: dict[str, Any]) -> str:
    """The same for a person, such as `14:02:11 POST /generate 200 0.251 s …`."""
    clock = datetime.fromisoformat(said["time"]).astimezone().strftime("%H:%M:%S")
    parts = [clock, said["method"], said["route"], str(said["status"])]
    parts.append(f"{said['total_seconds']:.3f} s")
    if "model" in said:
        parts.append(f"{said['prompt_tokens']} + {said['output_tokens']} tokens")
    if said.get("first_token_seconds") is not None:
        parts.append(f"first after {said['first_token_seconds']:.3f} s")
        parts.append(f"(queue {said['queue_seconds']:.3f} s)")
    parts += ["from the cache"] if said.get("cached") else []
    parts += [said[name] for name in ("finish_reason", "error", "client") if said.get(name)]
    parts.append(f"id {said['request_id']}")
    parts += [json.dumps(said[name]) for name in ("prompts", "texts") if name in said]
    return " ".join(part if part.isprintable() else ascii(part) for part in parts)
