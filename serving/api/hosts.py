"""Who may call: the names that this server goes by, and the pages that may write to it.

A server that listens on 127.0.0.1 can be reached by no other machine, but by every web page
that its user opens: a page may post to it, and by DNS rebinding (a name that points to
127.0.0.1) read its answers, too. So the `Host:` header must be a name of this machine, and
where a browser writes, its `Origin:` must be this server itself.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException

from serving.config import Config
from system.errors import see

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Accept, Authorization",
    "Access-Control-Max-Age": "600",
}
# What else than the usual a page elsewhere may read of an answer.
EXPOSED = "X-Request-ID, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"


class WrongHostError(HTTPException):
    """The server does not go by the name that it was called by."""

    code = 421
    description = (
        "this server does not go by that name: set LLM_ALLOWED_HOSTS to the names by which it "
        f"may be called. {see('hosts')}"
    )


def host_name(netloc: str) -> str:
    """The host of `name:port`, in small letters and without brackets; "" where there is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:  # brackets that are no address
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_is_allowed(config: Config, host: str) -> bool:
    """Whether the server may be called by this name.

    Args:
        config: where it listens, and by which names it may be called.
        host: as `host_name` gives it.
    """
    if is_loopback(host) or host == config.host.lower():
        return True
    if config.allowed_hosts:
        return "*" in config.allowed_hosts or host in map(str.lower, config.allowed_hosts)
    if os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return True  # the browser is on another machine and comes through the hub's proxy
    return not is_loopback(config.host)


def guard(app: Flask, config: Config) -> None:
    """Refuse foreign names with 421, and pages from elsewhere that write with 403."""

    @app.before_request
    def _check() -> None:
        host = request.headers.get("Host")  # no browser leaves it out
        if host is not None and not host_is_allowed(config, host_name(host)):
            raise WrongHostError
        if request.method not in SAFE_METHODS and not _from_here(config):
            raise Forbidden(
                "a page from elsewhere may not write here: set LLM_CORS_ORIGINS to the pages that "
                f"may. {see('hosts')}"
            )

    @app.after_request
    def _cors(response: Response) -> Response:
        origin = request.headers.get("Origin", "")
        if config.cors_origins:
            response.vary.add("Origin")
            if _may_call(config, origin):
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = EXPOSED
                if request.method == "OPTIONS":
                    response.headers.update(CORS_HEADERS)
        return response


def _may_call(config: Config, origin: str) -> bool:
    return bool(origin) and ("*" in config.cors_origins or origin in config.cors_origins)


def _from_here(config: Config) -> bool:
    """Whether a writing request comes from no browser, from this server's page or a named one."""
    origin = request.headers.get("Origin")
    if origin is None:
        # Every browser of today sends this header, and no page can change it.
        return request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if _may_call(config, origin):
        return True
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    except ValueError:
        raise BadRequest("the header Origin is not an address") from None
