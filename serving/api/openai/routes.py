"""The OpenAI-compatible routes: models, completions and chats, streamed or not. (Lesson 06.)

The official client works with `OpenAI(base_url="http://127.0.0.1:5000/v1", api_key="-")`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field
from werkzeug.routing import PathConverter

from helpers.settings import DEFAULT_NEW_TOKENS, check_prompt
from serving.api.errors import answer
from serving.api.openai import answers
from serving.api.openai.chat import ChatRequest
from serving.api.openai.requests import (
    COMPLETION_TOKENS,
    MAX_TEXTS,
    CompletionRequest,
    OpenAIRequest,
)
from serving.api.openai.writers import ChatWriter, CompletionWriter
from serving.api.streaming import SSE, event, pieces, stream, wait
from serving.engine.jobs import Job, NotReadyError, SequenceError, TimeLimitError
from serving.guard.cache import ResponseCache
from serving.guard.records import pick
from serving.models import Models
from serving.options import Options
from serving.service import Service
from system.errors import ParameterError

ERRORS: dict[Any, Any] = dict.fromkeys((400, 404, 413, 415, 500, 503, 504), answers.OpenAIError)
UNKNOWN: dict[Any, Any] = dict.fromkeys((404, 503), answers.OpenAIError)


class NameConverter(PathConverter):
    """A model's name in a path, slashes and all: a hub's has one, a folder's may begin with one."""

    regex, part_isolating = ".+?", False


class ModelName(BaseModel):
    """Which model is asked for."""

    name: str = Field(min_length=1)


def openai_routes(models: Models, cache: ResponseCache) -> APIBlueprint:
    """The routes below /v1."""
    api = APIBlueprint("openai", __name__, abp_tags=[Tag(name="OpenAI-compatible")])

    def entry(name: str) -> answers.ModelEntry:
        name, created = models.find(name), models.first.created
        return answers.ModelEntry(id=name, created=created, owned_by="llm-basics")

    @api.get("/v1/models", responses={200: answers.ModelList, 503: answers.OpenAIError})
    def list_models() -> Response:
        """The models that may be asked for, the default first."""
        return answer(answers.ModelList(data=[entry(name) for name in models.names]))

    @api.get("/v1/models/<name:name>", responses={200: answers.ModelEntry, **UNKNOWN})
    def model(path: ModelName) -> Response:
        """The model of this name."""
        return answer(entry(path.name))

    @api.post("/v1/completions", responses={200: answers.Completion, **ERRORS})
    def completions(body: CompletionRequest) -> Response:
        """Continue one or several prompts."""
        service = pick(models, body.model)
        key = "" if body.stream else cache.key(service, body, body.settings)
        if kept := cache.find(key):
            return kept
        service.refuse_if_full()
        prompts = _prompts(service, body)
        options = Options(
            stream=bool(body.stream),
            logprobs=body.logprobs,
            prompt_logprobs=bool(body.echo) and body.logprobs is not None,
            ignore_end=body.ignore_eos,
            only_prompt=body.max_tokens == 0,
            default_new_tokens=COMPLETION_TOKENS,
            structure=body.structure,
        )
        job = _start(service, body, [ids for _, ids in prompts], options)
        texts = body.settings.num_return_sequences
        shown = [text if body.echo else "" for text, _ in prompts for _ in range(texts)]
        writer = CompletionWriter(service.tokenizer, service.model, job, shown)
        if body.stream:
            return _stream(job, writer, body)
        wait(job)
        return cache.keep(key, writer.whole())

    @api.post("/v1/chat/completions", responses={200: answers.ChatCompletion, **ERRORS})
    def chats(body: ChatRequest) -> Response:
        """Answer a chat; only for models whose tokenizer has a chat template."""
        service = pick(models, body.model)
        if not service.tokenizer.has_chat_template:
            raise ParameterError(
                "model",
                service.model,
                "one with a chat template; this one only continues text: use /v1/completions",
            )
        key = "" if body.stream else cache.key(service, body, body.settings)
        if kept := cache.find(key):
            return kept
        service.refuse_if_full()
        ids = service.tokenizer.chat([{"role": m.role, "content": m.text} for m in body.messages])
        if not ids:
            raise ParameterError("messages", "…", "a chat of which something is left to read")
        options = Options(
            stream=bool(body.stream),
            logprobs=body.top_logprobs or 0 if body.logprobs else None,
            ignore_end=body.ignore_eos,
            default_new_tokens=service.limit if body.structure else DEFAULT_NEW_TOKENS,
            structure=body.structure,
        )
        job = _start(service, body, [ids], options)
        writer = ChatWriter(service.tokenizer, service.model, job, [""] * len(job.sequences))
        if body.stream:
            return _stream(job, writer, body)
        wait(job)
        return cache.keep(key, writer.whole())

    return api


def _start(
    service: Service, body: OpenAIRequest, prompts: Sequence[list[int]], options: Options
) -> Job:
    """`Service.start`; a length that does not fit is told by the name that it has here."""
    try:
        return service.start(prompts, body.settings, options)
    except ParameterError as error:
        if error.parameter != "max_new_tokens":
            raise
        raise ParameterError(body.length_name, error.value, error.allowed) from None


def _prompts(service: Service, body: CompletionRequest) -> list[tuple[str, list[int]]]:
    """The prompts of a request, each as text and as token ids."""
    given = body.prompt
    one = isinstance(given, str) or isinstance(given[0], int)
    several: list[Any] = [given] if one else list(given)
    if len(several) * body.settings.num_return_sequences > MAX_TEXTS:
        raise ParameterError("n", body.n, f"at most {MAX_TEXTS} texts with all prompts")
    found = []
    for prompt in several:
        if isinstance(prompt, str):
            text, ids = check_prompt(prompt), service.tokenizer.encode(prompt)
        else:
            if max(prompt) >= service.vocabulary:
                raise ParameterError(
                    "prompt", max(prompt), f"token ids from 0 to {service.vocabulary - 1}"
                )
            text, ids = service.tokenizer.decode(prompt), prompt
        found.append((text, ids))
    return found


def _stream(job: Job, writer: CompletionWriter | ChatWriter, body: OpenAIRequest) -> Response:
    """The job as blocks of OpenAI's stream, piece by piece."""
    updates = pieces(job)
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)

    def events() -> Iterator[str]:
        try:
            for block in writer.start():
                yield event(block)
            for update in updates():
                chunk = writer.chunk(update)
                if chunk:
                    yield event(chunk)
        except (TimeLimitError, NotReadyError, SequenceError, ParameterError) as error:
            message = str(error) or "the request was not done within the server's time limit"
            fault = "invalid_request" if isinstance(error, ParameterError) else "server"
            yield event({"error": {"message": message, "type": f"{fault}_error"}})
            return
        if with_usage:
            yield event(writer.head | {"choices": [], "usage": writer.usage().model_dump()})
        yield event("[DONE]")

    return stream(job, events(), SSE)
