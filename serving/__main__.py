"""Start the service: `python -m serving` (or `make serve`). (Lesson 06.)

Exit status: 0 after a shutdown, 1 where the model or the port cannot be used, 2 for a
wrong setting.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from waitress.server import MultiSocketServer, create_server

from serving.api.app import create_app
from serving.api.malformed import Channel
from serving.config import Config, ConfigError, load_config
from serving.guard.keys import warning
from serving.guard.logs import flush_logs, open_log
from serving.guard.traces import flush_traces
from serving.models import Models
from serving.service import Service
from serving.settings_shown import in_force, table
from system import startup
from system.child import end_with_parent
from system.errors import see

log = logging.getLogger("serving")
EXTRA_BODY_BYTES = 4 * 2**20  # bodies this much too large are still read, for a JSON answer


def arguments(argv: list[str] | None = None) -> dict[str, Any]:
    """The command line; what is not given is None, and the environment decides."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve a language model over HTTP.",
        epilog="Every other setting is an environment variable: --show-config names them.",
    )
    parser.add_argument("--model", dest="model_name", help="a shipped model, a folder or a hub id")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps, or -1, 0, 1 …")
    parser.add_argument("--host", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="the port to listen on (5000; 0 takes a free one)")
    parser.add_argument("--batching", help="continuous or static")
    parser.add_argument(
        "--show-config", action="store_true", help="print every setting and its source, and end"
    )
    return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl+C; returns the exit status."""
    end_with_parent()  # only where a `ServerProcess` started it
    given = arguments(argv)
    only_show = given.pop("show_config")
    try:
        config = load_config(**given)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if only_show:
        print(table(config))
        return 0
    try:
        open_log(config.log_file)
    except OSError as error:
        print(f"LLM_LOG_FILE={config.log_file} cannot be written: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=logging.DEBUG if config.debug else logging.INFO, format="%(levelname)s: %(message)s"
    )
    for noisy in ("urllib3", "filelock", "httpx", "httpcore", "waitress.queue"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("waitress").setLevel(logging.WARNING)  # clients may hang up
    models = Models(Service(config))
    try:
        if loud := warning(config):
            print(loud, file=sys.stderr, flush=True)
        server = listen(config, models)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(_no_port(config, error), file=sys.stderr)
        return 1
    return Runner(config, models, server).run()


def listen(config: Config, models: Models) -> Any:
    """A waitress server that holds the port and answers once it runs.

    Raises:
        OSError, ValueError: the address cannot be used.
    """
    server = create_server(
        create_app(models),
        host=config.host,
        port=config.port,
        threads=config.threads,
        connection_limit=config.threads + 200,
        asyncore_use_poll=True,  # select() fails beyond 1024 file descriptors
        channel_request_lookahead=1,  # needed to notice clients that hang up
        max_request_body_size=config.max_body_bytes + EXTRA_BODY_BYTES,
        channel_timeout=max(120, int(config.request_timeout) + 60),
        clear_untrusted_proxy_headers=True,
        trusted_proxy=config.trusted_proxy or None,
        trusted_proxy_headers={"x-forwarded-for"} if config.trusted_proxy else set(),
        ident=None,
    )
    for one in sockets(server):
        one.channel_class = Channel
    return server


def sockets(server: Any) -> list[Any]:
    """The servers behind a server: several, where a host name has several addresses."""
    if isinstance(server, MultiSocketServer):
        found = dict(server.map or {}).values()
        return [one for one in found if hasattr(one, "active_channels")]
    return [server]


def _no_port(config: Config, error: Exception) -> str:
    where = address(config.host, config.port).removeprefix("http://")
    if isinstance(error, OSError) and "in use" in str(error):
        other = config.port + 1 if config.port < 65535 else 5000
        return (
            f"port {config.port} is taken on {config.host}: stop what runs there, choose another "
            f"with LLM_PORT={other}, or LLM_PORT=0 for a free one. {see('port')}"
        )
    return (
        f"cannot listen on {where}: {error}. Set LLM_HOST and LLM_PORT to an address of this "
        "machine"
    )


def address(host: str, port: int) -> str:
    """Where this machine's own programs reach a server that listens on `host`."""
    local = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{local}]' if ':' in local else local}:{port}"


class Runner:
    """Runs the server in a thread, the model in the engine's, and waits for a signal."""

    def __init__(self, config: Config, models: Models, server: Any) -> None:
        self.config, self.models, self.server = config, models, server
        self.service = models.first
        several = isinstance(server, MultiSocketServer)
        self.port = server.effective_listen[0][1] if several else server.effective_port
        self._stop = threading.Event()
        self._status = 0

    def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signal)
        threading.Thread(target=self.server.run, name="http", daemon=True).start()
        self.service.load(self._ready, self._failed)
        while not self._stop.wait(1.0):
            pass  # a wait without end would hold back signals on Windows
        if self._status == 0:
            self._drain()
        self.models.close()
        return self._status

    def _signal(self, number: int, frame: object) -> None:
        if self._stop.is_set():
            os._exit(1)  # the second Ctrl+C: whoever asks twice does not want to wait
        self.service.draining = True
        self._stop.set()

    def _ready(self) -> None:
        url = address(self.config.host, self.port)
        print(
            f"Serving {self.service.model} on {self.service.device} at {url} : playground "
            f"{url}/ , health {url}/health , API {url}/openapi.json , Ctrl+C ends it\n"
            f"{in_force(self.config)}",
            flush=True,
        )

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, ValueError | OSError | TypeError):
            log.error("loading failed", exc_info=error)
        print(f"the model cannot be served: {error}", file=sys.stderr, flush=True)
        self._status = 1
        self._stop.set()

    def _drain(self) -> None:
        """Let running requests finish, up to the limit; new ones are refused meanwhile."""
        end = time.monotonic() + self.config.drain_seconds
        while time.monotonic() < end and self._busy():
            time.sleep(0.05)
        if self._busy():
            log.warning("shutdown: requests still ran after %g s", self.config.drain_seconds)
            self.models.close()  # they are answered with an error
            time.sleep(0.5)

    def _busy(self) -> bool:
        """Whether any connection has a request running or an answer not yet sent."""
        return any(
            channel.requests or channel.total_outbufs_len
            for server in sockets(self.server)
            for channel in list(server.active_channels.values())
        )


if __name__ == "__main__":
    status = startup.exit_status(main)
    flush_logs()
    flush_traces()
    # Threads of the HTTP server may still wait for clients; they are not worth waiting for.
    os._exit(status)
