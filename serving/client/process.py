"""A server of one's own, from a notebook or a test.

    with ServerProcess(model="course-gpt-1m") as server:
        print(server.url)

It is started, awaited and always stopped: at the latest when its notebook ends, even killed.
Interrupting a cell leaves it running. (Lesson 06.)
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from system.child import own_session, start_child
from system.environment import ROOT

_ADDRESS = re.compile(r" at (http://\S+) :")


class ServerError(RuntimeError):
    """The server did not start; the message holds what it said."""


class ServerProcess:
    """`python -m serving` as a child process on a free port.

    Attributes:
        url: where it answers, such as http://127.0.0.1:40123.
    """

    _running: dict[str, ServerProcess] = {}

    def __init__(self, name: str = "server", **settings: Any) -> None:
        """A server that is not running yet.

        Args:
            name: starting another one of the same name stops the first, so that a
                notebook's cell can be run twice.
            **settings: any setting of `config.Config`, and `model` for `model_name`.
        """
        self.name, self.url = name, ""
        if "model" in settings:
            settings["model_name"] = settings.pop("model")
        self._settings = {"port": 0, "host": "127.0.0.1"} | settings
        self._log = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120) -> ServerProcess:
        """Start, and wait until the model answers.

        Args:
            timeout: seconds to wait.

        Raises:
            ServerError: it ended instead, or took too long.
        """
        if (old := ServerProcess._running.pop(self.name, None)) is not None:
            old.stop()
        descriptor, log = tempfile.mkstemp(prefix="llm-server-", suffix=".log")
        self._log = Path(log)
        changes = {f"LLM_{k.upper()}": str(v) for k, v in self._settings.items()}
        end = time.monotonic() + timeout
        try:
            with os.fdopen(descriptor, "wb") as out:
                self.process = start_child(
                    [sys.executable, "-m", "serving"],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    **own_session(os.environ | changes),
                )
            ServerProcess._running[self.name] = self
            atexit.register(self.stop)
            while not (found := _ADDRESS.search(self.log)):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise ServerError(self.log.strip() or f"no answer within {timeout:g} s")
                time.sleep(0.05)
        except BaseException:  # an interrupted cell, too: there is no server then
            self.stop()
            raise
        self.url = found.group(1)
        return self

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        return self._log.read_text("utf-8", errors="replace") if self._log.is_file() else ""

    def stop(self, timeout: float = 40) -> int | None:
        """Ask it to end, and make it end after `timeout` seconds; returns its exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if ServerProcess._running.get(self.name) is self:
            del ServerProcess._running[self.name]
        atexit.unregister(self.stop)
        self._log.unlink(missing_ok=True)
        return self.process.returncode

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        alive = self.process is not None and self.process.poll() is None
        return f"ServerProcess({self.name}, {self.url if alive else 'stopped'})"
