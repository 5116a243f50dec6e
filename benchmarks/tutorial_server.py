"""The server that tutorials build: one transformers pipeline behind a lock, on waitress.

    python -m benchmarks.tutorial_server MODEL PORT

It is here to be compared with. The pipeline writes one text at a time and knows no
streaming: the lock lets one request in, and its text is sent when it is complete. Around
it is just enough of OpenAI's /v1/completions for the load test to speak to it.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from flask import Flask, Response, request

import helpers  # noqa: F401 - threads and waiting as in every other server, before torch
from helpers.models import load_model


def create_app(name: str) -> Flask:
    """The whole tutorial: load a pipeline, lock it, call it in a route."""
    from transformers import pipeline

    model, tokenizer = load_model(name, "cpu", "float32")
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    lock = threading.Lock()
    app = Flask(__name__)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/v1/completions")
    def completions() -> Response:
        body = request.get_json()
        temperature = body.get("temperature", 1.0)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        prompt_tokens = len(tokenizer(body["prompt"])["input_ids"])
        with lock:
            output = generator(
                body["prompt"],
                max_new_tokens=body["max_tokens"],
                return_tensors=True,
                **(sampling or {"do_sample": False}),
            )
        new = output[0]["generated_token_ids"][prompt_tokens:]
        answer: dict[str, Any] = {
            "choices": [{"index": 0, "text": tokenizer.decode(new), "finish_reason": "length"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(new)},
        }
        if body.get("stream"):
            return Response(f"data: {json.dumps(answer)}\n\n", mimetype="text/event-stream")
        return Response(json.dumps(answer), mimetype="application/json")

    return app


def main() -> None:
    """Serve on 127.0.0.1 with waitress' defaults."""
    import waitress

    name, port = sys.argv[1:]
    waitress.serve(create_app(name), host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
