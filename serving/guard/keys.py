"""API keys: who may use the service. (Lesson 09.)

A key is kept as its SHA-256 hash only, so that neither memory dumps, `--show-config` nor a file of
keys gives it away; a random key is long enough that a plain hash suffices. All hashes are
compared, each in constant time, so that the time of an answer tells nothing about them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

from serving.api.errors import problem
from serving.api.hosts import is_loopback
from serving.config import Config, ConfigError
from serving.guard.records import current
from serving.guard.settings import hashed
from system.errors import see
from system.textfiles import TextFileError, read_text

# What a load balancer asks, and the pages, which hold nothing of the server's.
OPEN = {"/health", "/live", "/", "/operator"}
_BEARER = re.compile(r"Bearer +(\S+) *", re.IGNORECASE)


def known_keys(config: Config) -> tuple[str, ...]:
    """The hashes of every key, from the settings and from the file.

    Raises:
        ConfigError: a file that cannot be read, or a line that is no key.
    """
    keys = list(config.api_keys)
    if config.api_keys_file:
        name = f"LLM_API_KEYS_FILE={config.api_keys_file}"
        try:
            lines = read_text(Path(config.api_keys_file)).splitlines()
        except (OSError, TextFileError) as error:
            raise ConfigError(f"{name} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    keys.append(hashed(line.strip()))
                except ValueError as error:
                    raise ConfigError(f"{name}: line {number} must be {error}") from None
        if not keys:  # an empty file must not open the server to everybody
            raise ConfigError(f"{name} holds no key: write one a line, or leave the setting out")
    return tuple(dict.fromkeys(keys))


def require_keys(app: Flask, config: Config) -> bool:
    """Answer 401 to requests without one of the keys; returns whether there are any.

    Raises:
        ConfigError: as `known_keys`.
    """
    keys = known_keys(config)
    if not keys:
        return False

    @app.before_request
    def _check() -> Response | None:
        given = _BEARER.fullmatch(request.headers.get("Authorization", ""))
        offered = hashlib.sha256((given[1] if given else "").encode()).hexdigest()
        matches = [key for key in keys if hmac.compare_digest(key, offered)]  # all of them
        if given and matches:
            current().client = matches[0][:8]
        elif request.path not in OPEN and request.method != "OPTIONS":  # of a page elsewhere
            return _refused("this API key is not known" if given else "an API key is missing")
        return None

    return True


def _refused(why: str) -> Response:
    message = f"{why}: send the header Authorization: Bearer KEY. {see('keys')}"
    response = problem(401, message, code="invalid_api_key")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def warning(config: Config) -> str:
    """What to say loudly at the start; "" where nothing is wrong.

    Raises:
        ConfigError: as `known_keys`.
    """
    if known_keys(config) or is_loopback(config.host):
        return ""
    return (
        f"NO API KEYS: whoever reaches {config.host} may use this server. Set LLM_API_KEYS or "
        f"LLM_API_KEYS_FILE. {see('keys')}"
    )


def describe(document: dict[str, Any]) -> None:
    """Add the keys to /openapi.json, where there are any."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        if path in OPEN:
            continue
        for method in methods.values():
            method["security"] = [{"key": []}]
            add_answer(path, method, 401, "No key, or one that is not known")


def add_answer(path: str, method: Any, status: int, text: str) -> None:
    """Add an error that a route may answer to its description."""
    name = "OpenAIError" if path.startswith("/v1/") else "Error"
    schema = {"$ref": f"#/components/schemas/{name}"}
    answer = {"description": text, "content": {"application/json": {"schema": schema}}}
    method["responses"][str(status)] = answer
