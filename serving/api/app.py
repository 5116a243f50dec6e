"""The routes of the API: health, info, generate, stream and the playground page. (Lesson 06.)"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Response, jsonify, request, send_file
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from flask_openapi3 import Info as DocumentInfo

from helpers.errors import ParameterError
from serving.api import schemas
from serving.api.errors import JSONRequest, answer, register_errors, wrong_parameter
from serving.api.hosts import guard
from serving.api.openai import openai_routes
from serving.api.streaming import SSE, ClientGoneError, event, pieces, stream, wait
from serving.engine.jobs import (
    Job,
    NotReadyError,
    Sequence,
    SequenceError,
    TimeLimitError,
)
from serving.service import Service

log = logging.getLogger(__name__)
PLAYGROUND = Path(__file__).with_name("playground.html")
ERRORS: dict[Any, Any] = dict.fromkeys((400, 413, 415, 500, 503, 504), schemas.Error)
STREAMS: dict[Any, Any] = {
    200: {
        "description": "Pieces of text as they are made.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            SSE: {"schema": schemas.EVENT},
        },
    }
}


def create_app(service: Service) -> OpenAPI:
    """The WSGI application around a service (which may still be loading)."""
    app = OpenAPI(
        "serving",
        info=DocumentInfo(title="LLM Basics API", version=schemas.API_VERSION),
        security_schemes={},
        doc_ui=False,
        static_folder=None,
        validation_error_status=400,
        validation_error_model=schemas.Error,
        validation_error_callback=wrong_parameter,
    )
    app.request_class = JSONRequest
    app.config["MAX_CONTENT_LENGTH"] = service.config.max_body_bytes
    register_errors(app)
    guard(app, service.config)

    @app.errorhandler(ClientGoneError)
    def _gone(error: ClientGoneError) -> Response:
        return Response(status=499)  # nobody reads it; nginx' number for "client closed request"

    @app.after_request
    def _log(response: Response) -> Response:
        log.debug("%s %s %d", request.method, request.path, response.status_code)
        return response

    @app.route("/openapi.json")
    def openapi() -> Response:
        return jsonify(_document(app, service))

    @app.route("/")
    def playground() -> Response:
        response = send_file(PLAYGROUND, mimetype="text/html", max_age=0)
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
        )
        return response

    app.register_api(_status_routes(service))
    app.register_api(_text_routes(service))
    app.register_api(openai_routes(service))
    return app


def _document(app: OpenAPI, service: Service) -> dict[str, Any]:
    """/openapi.json: what the schemas say, with this server's own limits and defaults."""
    document = copy.deepcopy(app.api_doc)
    for methods in document["paths"].values():  # a GET takes nothing that could be wrong
        methods.get("get", {}).get("responses", {}).pop("400", None)
    models = document["components"]["schemas"]
    for name in ("CompletionRequest", "ChatRequest"):
        models[name]["properties"]["model"]["enum"] = [service.model]
    generate = models["GenerateRequest"]["properties"]
    generate["temperature"]["default"] = service.config.default_temperature
    if not service.problem:
        for name, most in (("max_length", service.limit), ("max_new_tokens", service.limit - 1)):
            generate[name]["anyOf"][0]["maximum"] = most
    return document


def _status_routes(service: Service) -> APIBlueprint:
    api = APIBlueprint("status", __name__, abp_tags=[Tag(name="status")])

    @api.get("/health", responses={200: schemas.Health, 503: schemas.Unhealthy})
    def health() -> Response:
        """Whether requests can be served."""
        if service.problem:
            return answer(schemas.Unhealthy(error=service.problem), 503)
        return answer(
            schemas.Health(
                model=service.model, device=service.device, cuda_available=service.cuda_available
            )
        )

    @api.get("/live", responses={200: schemas.Live})
    def live() -> Response:
        """Whether the process answers at all."""
        return answer(schemas.Live())

    @api.get("/info", responses={200: schemas.Info, 503: schemas.Error})
    def info() -> Response:
        """What this server runs and allows."""
        config = service.config
        limit = service.limit
        return answer(
            schemas.Info(
                api_version=schemas.API_VERSION,
                model=service.model,
                device=service.device,
                cuda_available=service.cuda_available,
                max_length_limit=limit,
                default_max_length=min(config.default_max_length, limit),
                default_temperature=config.default_temperature,
                slots=service.engine.slots,
                batching=config.batching,
                supported_parameters=schemas.parameter_info(config, limit),
            )
        )

    return api


def _text_routes(service: Service) -> APIBlueprint:
    api = APIBlueprint("text", __name__, abp_tags=[Tag(name="text")])

    @api.post("/generate", responses={200: schemas.GenerateResponse, **ERRORS})
    def generate(body: schemas.GenerateRequest) -> Response:
        """Go on from a prompt and answer when the text is complete."""
        settings, job = _job(service, body)
        service.submit(job)
        wait(job)
        return answer(_response(service, settings, job.sequences))

    @api.post("/stream", responses={**STREAMS, **ERRORS})
    def stream_text(body: schemas.GenerateRequest) -> Response:
        """Go on from a prompt and send the text while it is written.

        With Accept: text/event-stream: events {"text": piece}, then an event "done" with
        usage and timings. Otherwise: the new text as plain text.
        """
        if body.num_return_sequences > 1:
            raise ParameterError("num_return_sequences", body.num_return_sequences, "1 here")
        settings, job = _job(service, body, streamed=True)
        service.submit(job)
        updates = pieces(job)
        if SSE not in request.headers.get("Accept", ""):
            return stream(job, (u.text for u in updates() if u.text), "text/plain")

        def events() -> Iterator[str]:
            try:
                for update in updates():
                    if update.text:
                        yield event({"text": update.text})
            except (TimeLimitError, NotReadyError, SequenceError) as error:
                yield event({"error": str(error) or "time limit reached"}, "error")
                return
            answered = _response(service, settings, job.sequences)
            summary = {"inference_time_seconds", "parameters", "metadata"}
            yield event(answered.model_dump(mode="json", include=summary), "done")

        return stream(job, events(), SSE)

    return api


def _job(
    service: Service, body: schemas.GenerateRequest, streamed: bool = False
) -> tuple[schemas.GenerateRequest, Job]:
    """The request with every default filled in, and its job."""
    ids = service.encode(body.prompt)
    settings = body.with_defaults(service.config, len(ids))
    room = service.room(settings, len(ids))
    job = service.job(stream=streamed)
    job.add(settings, ids, room)
    return settings, job


def _response(
    service: Service, settings: schemas.GenerateRequest, rows: list[Sequence]
) -> schemas.GenerateResponse:
    """The finished job as the API's answer."""
    first = rows[0]
    used = settings.model_dump(exclude={"prompt"}, mode="json")
    used |= {
        "max_length": first.prompt_tokens + first.max_new_tokens,
        "max_new_tokens": first.max_new_tokens,
    }
    used["seed"] = first.seed
    texts = [settings.prompt + row.text for row in rows]
    return schemas.GenerateResponse(
        prompt=settings.prompt,
        generated_text=texts[0],
        generated_texts=texts,
        inference_time_seconds=round(max(r.finished for r in rows) - first.job.created, 4),
        parameters=used,
        metadata=schemas.Metadata(
            model=service.model,
            device=service.device,
            prompt_tokens=first.prompt_tokens,
            new_tokens=first.new_tokens,
            total_tokens=first.prompt_tokens + first.new_tokens,
            time_to_first_token_seconds=round(first.ttft, 4),
            tokens_per_second=round(first.tokens_per_second, 1),
            finish_reason=first.finish_reason,  # type: ignore[arg-type]
        ),
    )
