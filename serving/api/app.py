"""The application: native and OpenAI-compatible routes, and the two pages. (Lesson 06.)"""

from __future__ import annotations

import copy
from typing import Any

from flask import Response, g, jsonify, request
from flask_openapi3 import Info as DocumentInfo
from flask_openapi3 import OpenAPI

from serving.api import schemas
from serving.api.errors import JSONRequest, register_errors, wrong_parameter
from serving.api.hosts import guard
from serving.api.native import status_routes, text_routes
from serving.api.openai.routes import NameConverter, openai_routes
from serving.api.pages import send_page
from serving.api.streaming import ClientGoneError
from serving.guard.cache import ResponseCache, cache_routes
from serving.guard.keys import describe, require_keys
from serving.guard.limits import describe_limits, limit_rates
from serving.guard.logs import RequestLog
from serving.guard.metrics import Metrics, metrics_routes
from serving.guard.records import keep_records
from serving.guard.traces import Traces, processor
from serving.models import Models

LENGTHS = (  # where a length is asked for, by what name, and what it counts
    ("GenerateRequest", "max_length", "max_length"),
    ("GenerateRequest", "max_new_tokens", "max_new_tokens"),
    ("CompletionRequest", "max_tokens", "max_new_tokens"),
    ("ChatRequest", "max_tokens", "max_new_tokens"),
    ("ChatRequest", "max_completion_tokens", "max_new_tokens"),
)


def create_app(models: Models) -> OpenAPI:
    """The WSGI application around a server's models (the first may still be loading)."""
    config = models.first.config
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
    app.url_map.merge_slashes = False  # a model's name may begin with one
    app.url_map.converters["name"] = NameConverter
    app.json.sort_keys = False  # type: ignore[attr-defined]  # /info lists parameters in their order
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    metrics = Metrics(models)
    cache = ResponseCache(config, metrics)
    log = RequestLog(config, metrics.lost_lines.inc)
    told = [metrics.add, log.add]
    if config.traces != "off":
        traces = Traces(processor(config.traces))
        told.append(traces.add)
    keep_records(app, models, told)
    register_errors(app)
    guard(app, config)
    keyed = require_keys(app, config)
    limit_rates(app, models.first)

    @app.errorhandler(ClientGoneError)
    def _gone(error: ClientGoneError) -> Response:
        g.error_kind = "client_gone"
        return Response(status=499)  # nobody reads it; nginx' number for "client closed request"

    @app.route("/openapi.json")
    def openapi() -> Response:
        return jsonify(_document(app, models, keyed))

    @app.route("/")
    @app.route("/operator")
    def page() -> Response:
        return send_page(request.path)

    app.register_api(status_routes(models))
    app.register_api(metrics_routes(metrics))
    app.register_api(cache_routes(cache))
    app.register_api(text_routes(models, cache))
    app.register_api(openai_routes(models, cache))
    return app


def _document(app: OpenAPI, models: Models, keyed: bool) -> dict[str, Any]:
    """/openapi.json: what the schemas say, with this server's own limits and defaults."""
    service = models.first
    document = copy.deepcopy(app.api_doc)
    for path, methods in document["paths"].items():
        if path != "/info":  # another GET takes nothing that could be wrong
            methods.get("get", {}).get("responses", {}).pop("400", None)
    (name,) = document["paths"]["/v1/models/{name}"]["get"]["parameters"]
    name["schema"]["enum"] = models.names
    (asked,) = document["paths"]["/info"]["get"]["parameters"]
    asked["schema"] = {"type": "string", "enum": models.names}
    shapes = document["components"]["schemas"]
    for request_name in ("CompletionRequest", "ChatRequest"):
        shapes[request_name]["properties"]["model"]["enum"] = models.names
    native = shapes["GenerateRequest"]["properties"]
    native["model"]["enum"] = [*models.names, None]
    native["temperature"]["default"] = service.config.default_temperature
    if not service.problem:
        for request_name, field, length in LENGTHS:
            shapes[request_name]["properties"][field]["anyOf"][0]["maximum"] = service.largest(
                length
            )
    if keyed:
        describe(document)
    describe_limits(document, service.config)
    return document
