"""The course's service as a deployment of Ray Serve: as many replicas as the load asks for.

    serve run deploy.ray_app:build model_name=course-gpt-16m slots=16

Every replica is a process with the whole service in it: the application and the engine that
`python -m serving` runs. Ray starts replicas, routes requests to them (of two picked by chance to
the one with less to do), replaces those that fail, and has as many as the load needs. Settings
are those of `serving.config`, from where it finds them or as arguments. (Lesson 10.)
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import click
from a2wsgi import WSGIMiddleware
from ray import serve
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serving.api.app import create_app
from serving.config import Config, ConfigError, load_config
from serving.guard.logs import flush_logs, open_log
from serving.guard.records import ID_HEADER
from serving.models import Models
from serving.service import Service

GONE = "llm.gone"  # the key in an ASGI scope under which a request's client is watched
LENGTHS = (b"content-length", b"transfer-encoding")
MAX_REPLICAS = 8


class WatchedWSGI:
    """A WSGI application for an ASGI server; learns when the client of a request hangs up.

    a2wsgi runs it in threads and sends each chunk at once. What it does not do is here: the
    length of a body that came in chunks, and the end of a request that nobody waits for.
    """

    def __init__(self, application: Any, threads: int, most_bytes: int) -> None:
        """An ASGI application.

        Args:
            application: any WSGI application; may call `environ["waitress.client_disconnected"]`.
            threads: most requests that are answered at the same time.
            most_bytes: largest body that it takes; of a larger one no more is read than shows it.
        """
        self._application, self._most = application, most_bytes
        # No limit to what is to be sent: a thread must never wait for a client that has gone.
        answer: Any = self._answer
        self._asgi: Any = WSGIMiddleware(answer, workers=threads, send_queue_size=0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request (ASGI's "http"); "lifespan" is a2wsgi's."""
        if scope["type"] != "http":
            await self._asgi(scope, receive, send)
            return
        body = await self._body(receive)
        if body is None:
            return
        gone = threading.Event()
        known = [(k, v) for k, v in scope["headers"] if k.lower() not in LENGTHS]
        if body or len(known) < len(scope["headers"]):
            known.append((b"content-length", str(len(body)).encode()))

        async def receive_again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        watch = asyncio.create_task(_watch(receive, gone))
        try:
            await self._asgi(scope | {"headers": known, GONE: gone}, receive_again, send)
        finally:  # also where this is cancelled, which is how Ray tells that the client left
            gone.set()
            watch.cancel()

    async def _body(self, receive: Any) -> bytes | None:
        """The request's body, or as much of it as shows that it is too large; None: hung up."""
        body, more = bytearray(), True
        while more and len(body) <= self._most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """Call the application in a thread, and close its answer when its client has gone."""
        gone: threading.Event = environ["asgi.scope"][GONE]
        environ["waitress.client_disconnected"] = gone.is_set

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            # Ray sends the request's id itself; twice would be one header too many.
            kept = [(k, v) for k, v in headers if k.lower() != ID_HEADER.lower()]
            return start_response(status, kept, *rest)

        chunks: Iterable[bytes] = self._application(environ, start)
        try:
            for chunk in chunks:
                if gone.is_set():
                    break
                yield chunk
        finally:
            getattr(chunks, "close", lambda: None)()


async def _watch(receive: Any, gone: threading.Event) -> None:
    """Wait for the client to hang up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


@serve.deployment(
    name="llm",
    ray_actor_options={"num_cpus": 1},
    health_check_period_s=5,
    max_surge_percent=100,  # an update starts new replicas before it stops old ones
    backpressure_config={"retry_after_s": 1},
)
@serve.ingress()
class LLM:
    """One replica: the service with its model, behind Ray's router."""

    def __init__(self, config: Config) -> None:
        """Load the model; Ray sends no request before it is there.

        Raises:
            Exception: why the model cannot be served; Ray tries again, then gives up and says so.
        """
        open_log(config.log_file)
        self.config, self.models = config, Models(Service(config))
        loaded: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.models.first.load(lambda: loaded.put(None), loaded.put)
        if (error := loaded.get()) is not None:
            raise error

    def __serve_build_asgi_app__(self) -> Any:
        config, application = self.config, create_app(self.models)
        app: Any = WatchedWSGI(application, config.threads, config.max_body_bytes)
        return ProxyHeadersMiddleware(app, config.trusted_proxy) if config.trusted_proxy else app

    def check_health(self) -> None:
        """Ray asks every few seconds, and replaces a replica that raises three times."""
        if problem := self.models.first.problem:
            raise RuntimeError(problem)

    def __del__(self) -> None:
        """The end: Ray has waited for the requests that ran, as long as `drain_seconds` says."""
        self.models.close()
        flush_logs()


def application(config: Config, **options: Any) -> serve.Application:
    """The deployment with what fits the settings: limits, autoscaling, time to drain.

    Args:
        config: the settings of every replica.
        **options: options of the deployment, such as `num_replicas`, in place of these.
    """
    scaling = {
        "min_replicas": 1,
        "max_replicas": MAX_REPLICAS,
        "target_ongoing_requests": config.slots,  # beyond it texts wait for a slot
        "look_back_period_s": 20,
        "upscale_delay_s": 5,
        "downscale_delay_s": 300,  # a new replica has to load a model first
    }
    fitting = {
        "autoscaling_config": None if "num_replicas" in options else scaling,
        "max_ongoing_requests": config.threads,  # so that /health never waits behind texts
        "max_queued_requests": config.threads,  # while no replica takes any
        "graceful_shutdown_timeout_s": config.drain_seconds + 5,
        "graceful_shutdown_wait_loop_s": 0.5,
    }
    replicas: Any = LLM  # a Deployment, since it is decorated
    bound: serve.Application = replicas.options(**fitting | options).bind(config)
    return bound


def build(args: dict[str, Any]) -> serve.Application:
    """The application that Ray Serve runs.

    Args:
        args: settings by name, as `slots=16` at the end of `serve run`; the highest rank.

    Raises:
        click.ClickException: a setting that cannot be used, in one line.
    """
    try:
        return application(load_config(**args))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
