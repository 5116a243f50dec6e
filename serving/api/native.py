"""The routes of the course's own API: health, info, generate and stream. (Lesson 06.)"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag

from serving.api import schemas
from serving.api.errors import answer
from serving.api.streaming import SSE, event, pieces, stream, wait
from serving.engine.jobs import Job, NotReadyError, SequenceError, TimeLimitError
from serving.guard.cache import ResponseCache
from serving.guard.records import pick
from serving.models import Models
from serving.options import Options
from serving.service import Service
from system.errors import ParameterError

ERRORS: dict[Any, Any] = dict.fromkeys((400, 404, 413, 415, 500, 503, 504), schemas.Error)
UNKNOWN: dict[Any, Any] = dict.fromkeys((400, 404, 503), schemas.Error)
STREAMS: dict[Any, Any] = {
    200: {
        "description": "Pieces of text as they are made.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            SSE: {"schema": schemas.EVENT},
        },
    }
}


def status_routes(models: Models) -> APIBlueprint:
    """Routes that tell of the server itself, and of its default model."""
    service = models.first
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

    @api.get("/live", responses={200: schemas.Live, 503: schemas.Unhealthy})
    def live() -> Response:
        """Whether it is worth waiting for: 503 says that only a new start helps."""
        if service.dead:
            return answer(schemas.Unhealthy(error=service.problem), 503)
        return answer(schemas.Live())

    @api.get("/info", responses={200: schemas.Info, **UNKNOWN})
    def info(query: schemas.Which) -> Response:
        """What this server runs and allows."""
        service = models.first if query.model is None else models.loaded(query.model)
        config, prefixes = service.config, service.engine.prefixes
        return answer(
            schemas.Info(
                api_version=schemas.API_VERSION,
                model=service.model,
                device=service.device,
                engine=config.engine,
                dtype=service.engine.dtype,  # type: ignore[arg-type]
                cuda_available=service.cuda_available,
                max_length_limit=service.limit,
                default_max_length=service.default_length,
                default_temperature=config.default_temperature,
                slots=service.engine.slots,
                queue_length=config.queue_length,
                request_timeout_seconds=config.request_timeout,
                batching=config.way_of_batching,  # type: ignore[arg-type]
                chat=service.tokenizer.has_chat_template,
                prefix_cache=schemas.PrefixCacheInfo(
                    capacity_bytes=prefixes.capacity_bytes,
                    used_bytes=prefixes.used_bytes,
                    **vars(prefixes.stats),
                ),
                structured_outputs=service.engine.grammars.kinds,
                supported_parameters=schemas.parameter_info(service),
            )
        )

    @api.get("/models", responses={200: schemas.ModelStates})
    def all_models() -> Response:
        """Every model that may be asked for, and which of them are loaded."""
        return answer(schemas.model_states(models))

    return api


def text_routes(models: Models, cache: ResponseCache) -> APIBlueprint:
    """Routes that write text."""
    api = APIBlueprint("text", __name__, abp_tags=[Tag(name="text")])

    @api.post("/generate", responses={200: schemas.GenerateResponse, **ERRORS})
    def generate(body: schemas.GenerateRequest) -> Response:
        """Continue a prompt and answer when the text is complete."""
        service, settings = pick(models, body.model), body.settings()
        key = cache.key(service, body, settings)
        if kept := cache.find(key):
            return kept
        service.refuse_if_full()
        job = service.start([service.tokenizer.encode(body.prompt)], settings)
        wait(job)
        return cache.keep(key, _response(service, body.prompt, job))

    @api.post("/stream", responses={**STREAMS, **ERRORS})
    def stream_text(body: schemas.GenerateRequest) -> Response:
        """Continue a prompt and send the text while it is written.

        With Accept: text/event-stream: events {"text": piece}, then an event "done" with
        usage and timings. Otherwise: the new text as plain text.
        """
        if body.num_return_sequences > 1:
            raise ParameterError("num_return_sequences", body.num_return_sequences, "1 here")
        service = pick(models, body.model)
        service.refuse_if_full()
        ids = service.tokenizer.encode(body.prompt)
        job = service.start([ids], body.settings(), Options(stream=True))
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
            answered = _response(service, body.prompt, job)
            summary = {"inference_time_seconds", "parameters", "metadata"}
            yield event(answered.model_dump(mode="json", include=summary), "done")

        return stream(job, events(), SSE)

    return api


def _response(service: Service, prompt: str, job: Job) -> schemas.GenerateResponse:
    """The finished job as the API's answer."""
    rows = job.sequences
    first = rows[0]
    used = first.settings.model_dump(mode="json")
    used["max_length"] = first.prompt_tokens + first.max_new_tokens
    used["max_new_tokens"] = first.max_new_tokens
    used["seed"] = first.seed
    texts = [prompt + row.text for row in rows]
    return schemas.GenerateResponse(
        prompt=prompt,
        generated_text=texts[0],
        generated_texts=texts,
        inference_time_seconds=round(max(r.finished for r in rows) - job.created, 4),
        parameters=used,
        metadata=schemas.Metadata(
            model=service.model,
            device=service.device,
            prompt_tokens=first.prompt_tokens,
            cached_tokens=first.cached_tokens,
            new_tokens=first.new_tokens,
            total_tokens=first.prompt_tokens + first.new_tokens,
            time_to_first_token_seconds=round(first.ttft, 4),
            tokens_per_second=round(first.tokens_per_second, 1),
            finish_reason=first.finish_reason,  # type: ignore[arg-type]
        ),
    )
