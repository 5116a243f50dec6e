"""The playground in front of any engine with OpenAI's API. (Lesson 10.)

    python -m serving.client.playground http://127.0.0.1:8080 --port 5001

The page is the service's own, unchanged: a browser lets it call no server but the one that it
came from. That is this program. It hands chats on as they are, puts the page's other requests into
OpenAI's words, and says what an engine does not: which parameters there are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing

import httpx
from flask import Flask, Response, jsonify, request
from waitress.server import create_server

from serving.api.errors import JSONRequest, problem, register_errors
from serving.api.hosts import guard
from serving.api.pages import send_page
from serving.api.streaming import SSE
from serving.client.answers import APIError
from serving.client.other_engine import DEFAULTS, Engine, as_native, passed_on
from serving.config import load_config
from system import startup
from system.child import end_with_parent


def create_app(engine: Engine) -> Flask:
    """The application: the page, and what it asks for."""
    app = Flask("playground", static_folder=None)
    app.request_class = JSONRequest
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the page has its sliders in our order
    app.config["MAX_CONTENT_LENGTH"] = 2**20
    register_errors(app)
    guard(app, load_config())

    @app.errorhandler(httpx.HTTPError)
    def _silent(error: httpx.HTTPError) -> Response:
        return problem(503, f"the engine at {engine.url} does not answer")

    @app.errorhandler(APIError)
    def _refused(error: APIError) -> Response:
        return problem(error.status if error.status < 500 else 502, str(error))

    @app.get("/")
    def page() -> Response:
        return send_page("/")

    @app.get("/health")
    def health() -> Response:
        engine.ask("GET", "/health").close()
        return jsonify(status="healthy")

    @app.get("/info")
    def info() -> Response:
        return jsonify(engine.info())

    @app.get("/models")
    def models() -> Response:
        return jsonify(models=[{"name": engine.info()["model"], "state": "ready"}])

    @app.post("/stream")
    def stream() -> Response:
        body = request.get_json()
        began = time.perf_counter()
        answer = engine.complete(body, stream=True, stream_options={"include_usage": True})
        events = as_native(answer, began, "stop" if "stop" in body else "end_of_text")
        return Response(events, mimetype=SSE)

    @app.post("/generate")
    def generate() -> Response:
        body = request.get_json()
        with closing(engine.complete(body)) as answer:
            text = json.loads(answer.read())["choices"][0]["text"]
        return jsonify(generated_text=f"{body['prompt']}{text}")

    @app.post("/v1/<path:rest>")
    def openai(rest: str) -> Response:
        body = DEFAULTS | request.get_json()
        # The page counts a prompt's tokens by a text of none, which few engines write.
        body |= {} if body.get("max_tokens", 1) else {"max_tokens": 1}
        if body.get("stream"):
            return Response(passed_on(engine.ask("POST", f"/v1/{rest}", body)), mimetype=SSE)
        return jsonify(engine.json("POST", f"/v1/{rest}", body))

    return app


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl+C; exit status 1 where the port is taken."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m serving.client.playground")
    parser.add_argument("url", help="the engine, such as http://127.0.0.1:8080")
    parser.add_argument("--port", type=int, default=5001, help="of the page, on 127.0.0.1")
    parser.add_argument("--model", default="", help="as the engine names it (asks /v1/models)")
    parser.add_argument("--context", type=int, default=0, help="tokens a text may have")
    given = parser.parse_args(argv)
    app = create_app(Engine(given.url, given.model, given.context))
    try:
        server = create_server(app, host="127.0.0.1", port=given.port, threads=8, ident=None)
    except (OSError, OverflowError) as error:
        print(f"port {given.port} cannot be used: {error}", file=sys.stderr)
        return 1
    print(f"The playground of {given.url} is at http://127.0.0.1:{given.port}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    startup.run(main)
