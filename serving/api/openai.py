"""The OpenAI-compatible routes: models, completions and chats, streamed or not. (Lesson 06.)

The official client works with `OpenAI(base_url="http://127.0.0.1:5000/v1", api_key="-")`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from helpers.errors import ParameterError
from helpers.settings import check_prompt
from serving.api import schemas
from serving.api.errors import answer, problem
from serving.api.streaming import SSE, event, pieces, stream, wait
from serving.engine.jobs import (
    Job,
    NotReadyError,
    Sequence,
    SequenceError,
    TimeLimitError,
    TokenLogprob,
    Update,
)
from serving.service import Service

ERRORS: dict[Any, Any] = dict.fromkeys((400, 404, 413, 415, 500, 503, 504), schemas.OpenAIError)
REASONS = {"end_of_text": "stop", "stop": "stop", "length": "length"}


class UnknownModelError(ValueError):
    """Another model than the one that is served."""


def openai_routes(service: Service) -> APIBlueprint:
    """The routes below /v1."""
    api = APIBlueprint("openai", __name__, abp_tags=[Tag(name="OpenAI-compatible")])

    @api.errorhandler(UnknownModelError)
    def _unknown(error: UnknownModelError) -> Response:
        return problem(404, str(error), "model", code="model_not_found")

    @api.get("/v1/models", responses={200: schemas.ModelList, 503: schemas.OpenAIError})
    def models() -> Response:
        """The model that is served."""
        _ = service.engine
        entry = schemas.ModelEntry(id=service.model, created=service.created, owned_by="llm-basics")
        return answer(schemas.ModelList(data=[entry]))

    @api.post("/v1/completions", responses={200: schemas.Completion, **ERRORS})
    def completions(body: schemas.CompletionRequest) -> Response:
        """Go on from one or several prompts."""
        _check(service, body)
        prompts = _prompts(service, body)
        job = service.job(
            stream=bool(body.stream),
            logprobs=body.logprobs,
            prompt_logprobs=bool(body.echo) and body.logprobs is not None,
            ignore_end=body.ignore_eos,
        )
        for _, ids in prompts:
            settings = body.settings(body.max_tokens)
            job.add(settings, ids, service.room(settings, len(ids)))
        service.submit(job)
        writer = _CompletionWriter(service, job, body, [text for text, _ in prompts])
        if body.stream:
            return _stream(job, writer, body.stream_options)
        wait(job)
        return answer(writer.whole())

    @api.post("/v1/chat/completions", responses={200: schemas.ChatCompletion, **ERRORS})
    def chats(body: schemas.ChatRequest) -> Response:
        """Answer a chat; only for models whose tokenizer has a chat template."""
        _check(service, body)
        if not service.has_chat_template:
            raise ParameterError(
                "model",
                service.model,
                "one with a chat template; this one only goes on from text: use /v1/completions",
            )
        for message in body.messages:
            check_prompt(message.content)  # says what is wrong with it
        ids = service.chat_ids([m.model_dump(include={"role", "content"}) for m in body.messages])
        settings = body.settings(body.max_completion_tokens or body.max_tokens)
        job = service.job(stream=bool(body.stream), ignore_end=body.ignore_eos)
        job.add(settings, ids, service.room(settings, len(ids)))
        service.submit(job)
        writer = _ChatWriter(service, job)
        if body.stream:
            return _stream(job, writer, body.stream_options)
        wait(job)
        return answer(writer.whole())

    return api


def _check(service: Service, body: schemas._OpenAIRequest) -> None:
    _ = service.engine  # 503 comes before every other complaint
    if body.model != service.model:
        raise UnknownModelError(f"model {body.model!r:.80} is not here: this is {service.model}")
    if body.stream_options is not None and not body.stream:
        raise ParameterError("stream_options", "…", "left out unless stream is true")


def _prompts(service: Service, body: schemas.CompletionRequest) -> list[tuple[str, list[int]]]:
    """The prompts of a request, each as text and as token ids."""
    given = body.prompt
    one = isinstance(given, str) or isinstance(given[0], int)
    several: list[Any] = [given] if one else list(given)
    if len(several) * body.n > schemas.MAX_TEXTS:
        raise ParameterError("n", body.n, f"at most {schemas.MAX_TEXTS} texts with all prompts")
    found = []
    for prompt in several:
        if isinstance(prompt, str):
            text, ids = check_prompt(prompt), service.encode(prompt)
        else:
            if max(prompt) >= service.vocabulary:
                raise ParameterError(
                    "prompt", max(prompt), f"token ids from 0 to {service.vocabulary - 1}"
                )
            text, ids = service.decode(prompt), prompt
        found.append((text, ids))
    return found


class _CompletionWriter:
    """Writes a job in the form of /v1/completions."""

    def __init__(
        self, service: Service, job: Job, body: schemas.CompletionRequest, prompts: list[str]
    ) -> None:
        self.service, self.job, self.body, self.prompts = service, job, body, prompts
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.model,
        }
        self._noted = [0] * len(job.sequences)  # tokens whose log-probabilities are sent
        self._offset = [0] * len(job.sequences)

    def _prompt(self, row: Sequence) -> str:
        return self.prompts[row.index // self.body.n] if self.body.echo else ""

    def _logprobs(self, row: Sequence) -> schemas.Logprobs | None:
        """The log-probabilities that were not sent yet."""
        if self.body.logprobs is None:
            return None
        entries = [*row.prompt_logprobs, *row.logprobs]
        new = entries[self._noted[row.index] :]
        self._noted[row.index] = len(entries)
        found = schemas.Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for entry in new:
            token = self.service.decode([entry.token_id])
            found.tokens.append(token)
            found.token_logprobs.append(entry.logprob)
            found.top_logprobs.append(self._top(entry))
            found.text_offset.append(self._offset[row.index])
            self._offset[row.index] += len(token)
        return found

    def _top(self, entry: TokenLogprob) -> dict[str, float] | None:
        if entry.logprob is None:
            return None
        return {self.service.decode([token]): value for token, value in entry.top}

    def start(self) -> Iterator[dict[str, Any]]:
        for row in self.job.sequences:
            if self.body.echo:
                yield self._choice(row, self._prompt(row), None, None)

    def chunk(self, update: Update) -> dict[str, Any] | None:
        row = self.job.sequences[update.index]
        logprobs = self._logprobs(row)
        if not (update.text or update.finish_reason or logprobs):
            return None
        reason = REASONS.get(update.finish_reason)
        return self._choice(row, update.text, logprobs, reason)

    def _choice(
        self, row: Sequence, text: str, logprobs: schemas.Logprobs | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {
            "index": row.index,
            "text": text,
            "logprobs": logprobs.model_dump() if logprobs else None,
            "finish_reason": reason,
        }
        return self.head | {"choices": [choice]}

    def whole(self) -> schemas.Completion:
        choices = [
            schemas.CompletionChoice(
                index=row.index,
                text=self._prompt(row) + row.text,
                logprobs=self._logprobs(row),
                finish_reason=REASONS[row.finish_reason],  # type: ignore[arg-type]
            )
            for row in self.job.sequences
        ]
        return schemas.Completion(
            **self.head,  # type: ignore[arg-type]
            choices=choices,
            usage=_usage(self.job, self.body.n),
        )

    def usage(self) -> schemas.Usage:
        return _usage(self.job, self.body.n)


class _ChatWriter:
    """Writes a job in the form of /v1/chat/completions."""

    def __init__(self, service: Service, job: Job) -> None:
        self.job = job
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": service.model,
        }

    def start(self) -> Iterator[dict[str, Any]]:
        for row in self.job.sequences:
            yield self._choice(row.index, {"role": "assistant", "content": ""}, None)

    def chunk(self, update: Update) -> dict[str, Any] | None:
        if not (update.text or update.finish_reason):
            return None
        delta = {"content": update.text} if update.text else {}
        return self._choice(update.index, delta, REASONS.get(update.finish_reason))

    def _choice(self, index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self.head | {"choices": [choice]}

    def whole(self) -> schemas.ChatCompletion:
        choices = [
            schemas.ChatChoice(
                index=row.index,
                message=schemas.AssistantMessage(content=row.text),
                finish_reason=REASONS[row.finish_reason],  # type: ignore[arg-type]
            )
            for row in self.job.sequences
        ]
        head = self.head | {"object": "chat.completion"}
        return schemas.ChatCompletion(
            **head,  # type: ignore[arg-type]
            choices=choices,
            usage=self.usage(),
        )

    def usage(self) -> schemas.Usage:
        return _usage(self.job, len(self.job.sequences))


def _usage(job: Job, texts_per_prompt: int) -> schemas.Usage:
    """Token counts; a prompt counts once, however many texts were written for it."""
    read = sum(row.prompt_tokens for row in job.sequences[::texts_per_prompt])
    written = sum(row.new_tokens for row in job.sequences)
    return schemas.Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _stream(
    job: Job, writer: _CompletionWriter | _ChatWriter, options: schemas.StreamOptions | None
) -> Response:
    """The job as blocks of OpenAI's stream, piece by piece."""
    updates = pieces(job)

    def events() -> Iterator[str]:
        try:
            for block in writer.start():
                yield event(block)
            for update in updates():
                chunk = writer.chunk(update)
                if chunk:
                    yield event(chunk)
        except (TimeLimitError, NotReadyError, SequenceError) as error:
            message = str(error) or "the request was not done within the server's time limit"
            yield event({"error": {"message": message, "type": "server_error"}})
            return
        if options is not None and options.include_usage:
            yield event(writer.head | {"choices": [], "usage": writer.usage().model_dump()})
        yield event("[DONE]")

    return stream(job, events(), SSE)
