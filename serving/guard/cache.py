"""The response cache: the same deterministic request is answered once by the model. (Lesson 09.)

Only requests whose text is always the same are kept: greedy ones, and those with a seed. The key
holds everything that changes the answer: the route, every parameter that the request names, what
this server sets for the others, the model and its weights. A key without `top_k` or the seed would
answer with the text of another request. Streams are neither kept nor answered from here.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TTLCache
from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field

from helpers.settings import GenerationSettings
from serving.api.errors import answer
from serving.config import Config
from serving.guard.metrics import Metrics
from serving.guard.records import current
from serving.service import Service

HEADER = "X-Cache"
ENTRY_BYTES = 300  # about what an entry takes besides the answer


@dataclass(frozen=True)
class Entry:
    """A kept answer: its JSON, and whose it is."""

    body: bytes
    owner: str


class Cleared(BaseModel):
    """What POST /cache/clear did."""

    cleared: int = Field(description="Answers that were kept and are forgotten.")


class ResponseCache:
    """The answers of one service, the least recently used going first."""

    def __init__(
        self, config: Config, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Empty; with `response_cache_mb` = 0 it stays so.

        Args:
            config: bounds it in bytes and age.
            metrics: where hits and misses are counted.
            clock: seconds, for the age.
        """
        self._config = config
        self._lock = threading.Lock()
        self._entries: TTLCache[str, Entry] = TTLCache(
            config.response_cache_mb * 2**20,
            config.response_cache_seconds,
            clock,
            lambda entry: len(entry.body) + ENTRY_BYTES,
        )
        self._hits, self._misses = metrics.cache_hits, metrics.cache_misses
        metrics.cache_bytes.set_function(lambda: self._entries.currsize)

    def find(self, key: str) -> Response | None:
        """The kept answer to a request, marked in body and header; None where there is none."""
        if not key:
            return None
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            self._misses.inc()
            return None
        self._hits.inc()
        current().cached = True
        response = jsonify(json.loads(entry.body) | {"cached": True})
        response.headers[HEADER] = "HIT"
        return response

    def keep(self, key: str, model: BaseModel) -> Response:
        """A new answer as the response; kept where it may be."""
        response = answer(model)
        if key:
            response.headers[HEADER] = "MISS"
            entry = Entry(response.get_data(), self._owner())
            with self._lock:
                if len(entry.body) + ENTRY_BYTES <= self._entries.maxsize:
                    self._entries[key] = entry
        return response

    def clear(self) -> int:
        """Forget what whoever asks may be answered from; returns how many answers."""
        with self._lock:
            mine = [key for key, entry in self._entries.items() if entry.owner == self._owner()]
            for key in mine:
                del self._entries[key]
        return len(mine)

    def _owner(self) -> str:
        """Whose answers a request may get: those of its own API key, or everybody's."""
        return "" if self._config.response_cache_shared else current().client

    def key(self, service: Service, body: BaseModel, settings: GenerationSettings) -> str:
        """All that changes the answer, as a hash; "" where the request is not to be kept.

        Args:
            service: whose model answers.
            body: the request, as it named its parameters.
            settings: the same, as the engine knows them.
        """
        config = self._config
        named = settings.model_fields_set
        warm = settings.temperature if "temperature" in named else config.default_temperature
        if not config.response_cache_mb or (warm > 0 and settings.seed is None):
            return ""
        defaults = [config.dtype, config.default_temperature, service.default_length, service.limit]
        parts = [self._owner(), request.path, service.model, service.weights, defaults]
        asked = body.model_dump(mode="json", exclude_unset=True, exclude={"model"})
        return hashlib.sha256(json.dumps([*parts, asked], sort_keys=True).encode()).hexdigest()


def cache_routes(cache: ResponseCache) -> APIBlueprint:
    """The route that empties it."""
    api = APIBlueprint("cache", __name__, abp_tags=[Tag(name="status")])

    @api.post("/cache/clear", responses={200: Cleared})
    def clear() -> Response:
        """Forget every answer kept for whoever asks: of one's API key, where there are keys."""
        return answer(Cleared(cleared=cache.clear()))

    return api
