"""Rate limits: how many requests and tokens a client may ask for in a minute. (Lesson 09.)

A client is its API key, else its address. A request costs its prompt and the most new tokens that
it may get, before it is written: how many there will be nobody knows yet. Windows are fixed
minutes, so that the time in Retry-After is the time after which a request is taken.
"""

from __future__ import annotations

import logging
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from flask import Flask, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItemPerMinute
from limits.errors import ConfigurationError
from werkzeug.exceptions import TooManyRequests

from serving.api.errors import RETRY_AFTER_SECONDS, problem
from serving.api.hosts import is_loopback
from serving.config import Config, ConfigError
from serving.engine.jobs import Job
from serving.guard.keys import OPEN, add_answer
from serving.guard.records import current
from serving.service import Service
from system.errors import ParameterError, see

log = logging.getLogger(__name__)
FREE = OPEN | {"/metrics", "/openapi.json"}


class TokenLimitError(TooManyRequests):
    """The client has asked for its tokens of this minute."""


def limit(config: Config, name: str) -> int:
    """A limit in force; 0 is none. On this machine only those count that somebody has set."""
    if name not in config.model_fields_set and is_loopback(config.host):
        return 0
    return int(getattr(config, name))


def client() -> str:
    """Whose request this is: an API key, an address, or for IPv6 the network of one."""
    if key := current().client:
        return f"key:{key}"
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a socket without addresses
        return "local"
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))  # one household has all of these
    return str(address)


def limit_rates(app: Flask, service: Service) -> None:
    """Answer 429 to clients that ask for too much; to be called after `require_keys`.

    Raises:
        ConfigError: counts cannot be kept where LLM_LIMITS_STORAGE says.
    """
    config = service.config
    requests, tokens = limit(config, "requests_per_minute"), limit(config, "tokens_per_minute")
    if not (requests or tokens):
        return

    @app.after_request
    def _tell(response: Response) -> Response:  # runs after Flask-Limiter's, which is made later
        if response.status_code == 503:
            response.headers["Retry-After"] = RETRY_AFTER_SECONDS
        elif response.status_code == 429:
            response.headers["Retry-After"] = str(max(1, int(response.headers["Retry-After"])))
        else:
            response.headers.pop("Retry-After", None)
        for name, value in g.get("token_headers", {}).items():
            response.headers[name] = value
        return response

    try:
        limiter = Limiter(
            client,
            app=app,
            application_limits=[f"{requests} per minute"] if requests else [],
            storage_uri=config.limits_storage,
            strategy="fixed-window",
            headers_enabled=True,
            in_memory_fallback_enabled=True,  # a store that is away must not stop the service
            swallow_errors=True,
            key_prefix="llm",
        )
    except (ConfigurationError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"LLM_LIMITS_STORAGE={config.limits_storage}: {why}") from None
    limiter.request_filter(lambda: request.path in FREE or request.method == "OPTIONS")

    @app.errorhandler(RateLimitExceeded)
    def _often(error: RateLimitExceeded) -> Response:
        return _refused(f"more than {requests} requests a minute")

    @app.errorhandler(TokenLimitError)
    def _much(error: TokenLimitError) -> Response:
        response = _refused(f"more than {tokens} tokens a minute")
        response.headers["Retry-After"] = str(g.token_wait)
        return response

    if tokens:
        service.admit = lambda job: _spend(limiter, tokens, job)


def describe_limits(document: dict[str, Any], config: Config) -> None:
    """Add the limits to /openapi.json."""
    if limit(config, "requests_per_minute") or limit(config, "tokens_per_minute"):
        for path, methods in document["paths"].items():
            for method in methods.values() if path not in FREE else ():
                add_answer(path, method, 429, "Too many requests or tokens a minute")


def _spend(limiter: Limiter, tokens: int, job: Job) -> None:
    """Take a job's tokens from those of the minute.

    Raises:
        TokenLimitError: there are not so many left.
        ParameterError: there never are.
    """
    cost = sum(row.prompt_tokens + row.max_new_tokens for row in job.sequences)
    new = max(row.max_new_tokens for row in job.sequences)
    if cost > tokens:
        allowed = f"fewer: with its prompts and texts this request takes {cost} tokens, and a"
        raise ParameterError("max_new_tokens", new, f"{allowed} client has {tokens} a minute")
    item, names = RateLimitItemPerMinute(tokens), ("llm", client(), "tokens")
    try:
        fits = limiter.limiter.test(item, *names, cost=cost)
        if fits:
            limiter.limiter.hit(item, *names, cost=cost)
        window = limiter.limiter.get_window_stats(item, *names)
    except Exception as error:  # a store that has just gone; Flask-Limiter looks for it again
        log.warning("tokens were not counted: %s", error)
        return
    g.token_wait = max(1, int(window.reset_time - time.time()) + 1)
    g.token_headers = {
        "X-RateLimit-Limit-Tokens": str(tokens),
        "X-RateLimit-Remaining-Tokens": str(window.remaining),
    }
    if not fits:
        raise TokenLimitError


def _refused(why: str) -> Response:
    message = f"{why}: try again after the time in Retry-After. {see('limits')}"
    return problem(429, message, code="rate_limit_exceeded")
