"""HTTP details: reading JSON strictly, and answering every error as JSON."""

from __future__ import annotations

import json
import logging
from typing import Any, NoReturn

from flask import Flask, Request, Response, g, jsonify, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest, HTTPException, UnsupportedMediaType

from serving.engine.jobs import NotReadyError, QueueFullError, SequenceError, TimeLimitError
from serving.models import UnknownModelError
from system.errors import ParameterError

log = logging.getLogger(__name__)
RETRY_AFTER_SECONDS = "1"
# OpenAI's names for kinds of errors: https://platform.openai.com/docs/guides/error-codes
_KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "timeout"}
# This course's, for metrics and logs, where a handler names none.
_ERRORS = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
_ERRORS |= {413: "too_large", 415: "unsupported_media_type", 421: "wrong_host"}
_ERRORS |= {429: "rate_limited", 500: "internal", 503: "not_ready", 504: "timeout"}


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is not valid JSON: {name} is no number there")


class JSONRequest(Request):
    """A request whose body is a JSON object, or an error that says what it is instead."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body as a dictionary; never None, whatever `silent` says.

        Raises:
            UnsupportedMediaType, BadRequest: 415, 400 (and 413 from werkzeug).
        """
        if not self.is_json:
            raise UnsupportedMediaType("send JSON with the header Content-Type: application/json")
        try:
            body = json.loads(self.get_data(), parse_constant=_refuse_constant)
        except RecursionError:
            raise BadRequest("the JSON is nested too deeply") from None
        except ValueError as error:  # also wrong UTF-8 and numbers of thousands of digits
            reason = str(error) if isinstance(error, json.JSONDecodeError) else "see RFC 8259"
            raise BadRequest(f"the body is not valid JSON: {reason}") from None
        if not isinstance(body, dict):
            raise BadRequest(f"the body must be a JSON object, not {type(body).__name__}")
        return body


def problem(
    status: int,
    message: str,
    parameter: str | None = None,
    allowed: str | None = None,
    error: str = "",
    code: str | None = None,
    **more: Any,
) -> Response:
    """An error as JSON, below /v1/ in OpenAI's form.

    Args:
        status: the HTTP status.
        message: for a person.
        parameter: which is wrong.
        allowed: what it may be.
        error: its kind, for metrics and logs; else the status has one.
        code: OpenAI's name for it; other routes have none.
        **more: further fields.
    """
    g.error_kind = error or _ERRORS.get(status, "bad_request")
    if request.path.startswith("/v1/"):
        kind = _KINDS.get(status, "invalid_request_error")
        body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": parameter, "code": code}
        } | more
    else:
        named = {"parameter": parameter, "allowed": allowed} | more
        body = {"error": message} | {k: v for k, v in named.items() if v is not None}
    response = jsonify(body)
    response.status_code = status
    if status in (429, 503):
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _let_go(error: BaseException | None) -> None:
    """Cut what the garbage collector cannot see, and would keep for ever.

    Pydantic's error holds those of our validators, their tracebacks the frames of the request,
    and these pydantic's error; but it does not tell the collector what it holds.
    """
    while error is not None:
        for found in error.errors(include_url=False) if isinstance(error, ValidationError) else ():
            inner = found.get("ctx", {}).get("error")
            if isinstance(inner, BaseException):
                _let_go(inner.__context__)
                inner.__traceback__ = inner.__context__ = None
        error = error.__context__


def wrong_parameter(error: Exception) -> Response:
    """The 400 for a parameter out of range, from this course's errors or from pydantic's."""
    _let_go(error)
    parameter = allowed = None
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ValueError):
            error = cause
        if not isinstance(error, ParameterError):
            place = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                message = "not supported here"
            parameter = place.partition(".")[0] or None
            return problem(400, f"{place}: {message}" if place else message, parameter)
    if isinstance(error, ParameterError):
        parameter, allowed = error.parameter, error.allowed
    return problem(400, str(error), parameter, allowed)


def answer(model: BaseModel, status: int = 200) -> Response:
    """A pydantic model as the response."""
    response = jsonify(model.model_dump(mode="json"))
    response.status_code = status
    return response


def register_errors(app: Flask) -> None:
    """Answer every error as JSON; nothing of the server's inside is told to strangers."""

    @app.errorhandler(ParameterError)
    @app.errorhandler(ValidationError)
    def _parameter(error: Exception) -> Response:
        return wrong_parameter(error)

    @app.errorhandler(UnknownModelError)
    def _model(error: UnknownModelError) -> Response:
        known = ", ".join(error.known)
        return problem(404, str(error), "model", known, code="model_not_found")

    @app.errorhandler(QueueFullError)
    def _full(error: QueueFullError) -> Response:
        message = "the queue is full: try again after the time in Retry-After"
        return problem(503, message, error="queue_full")

    @app.errorhandler(NotReadyError)
    def _not_ready(error: NotReadyError) -> Response:
        return problem(503, str(error))

    @app.errorhandler(TimeLimitError)
    def _late(error: TimeLimitError) -> Response:
        return problem(504, "the request was not done within the server's time limit")

    @app.errorhandler(SequenceError)
    def _failed(error: SequenceError) -> Response:
        return problem(500, f"generation failed: {error}", error="generation_failed")

    @app.errorhandler(404)
    def _unknown(error: HTTPException) -> Response:
        rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
        known = sorted(
            f"{method} {rule.rule}"
            for rule in rules
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        )
        return problem(404, f"there is no {request.path}", available_endpoints=known)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        messages = {
            405: f"{request.method} is not allowed here",
            413: f"the body is larger than {app.config['MAX_CONTENT_LENGTH']} bytes",
        }
        status = error.code or 500
        response = problem(status, messages.get(status) or str(error.description))
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def _internal(error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return problem(500, "internal error: the server's log has the details")
