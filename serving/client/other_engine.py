"""An engine with OpenAI's API, asked by the playground's requests. (Lesson 10.)"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
from flask import request

from serving.api.streaming import event
from serving.client.answers import APIError, api_error, events
from system.environment import is_loopback

TIMEOUT = 120.0  # seconds until the next piece of an answer
CONTEXT = 1024  # tokens of prompt and answer, where neither engine nor user says more
DONE = "[DONE]"
OPENAI = {  # what all engines take, by the page's names
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}
DEFAULTS = {"temperature": 0.7, "top_p": 1.0}  # sent along: every engine has others


def parameters(context: int) -> dict[str, dict[str, Any]]:
    """The page's controls, in the form of `serving.api.schemas.ParameterInfo`.

    Args:
        context: tokens that prompt and answer may have together.
    """
    described = {
        "max_new_tokens": ("integer", 1, context, 40, "How many tokens to write at most."),
        "temperature": ("number", 0, 2, DEFAULTS["temperature"], "0: always the likeliest token."),
        "top_p": ("number", 0.05, 1, DEFAULTS["top_p"], "Tokens that hold this probability."),
        "seed": ("integer", 0, 2**31 - 1, None, "The same seed writes the same text."),
        "stop": ("strings", None, None, None, "Strings that end the text."),
    }
    keys = ("type", "minimum", "maximum", "default", "description")
    return {
        name: dict(zip(keys, values, strict=True))
        | {"above": False, "openai": {"name": OPENAI[name], "default": None, "extra": False}}
        for name, values in described.items()
    }


class Engine:
    """The engine behind the page.

    Attributes:
        url: its address, without /v1.
    """

    def __init__(self, url: str, model: str = "", context: int = 0) -> None:
        """An engine that nothing is asked yet.

        Args:
            url: its address.
            model: as its requests name the model; "" asks the engine.
            context: tokens of a text; 0 takes what the engine says, else `CONTEXT`.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._model, self._context = model, context
        self._found = ""  # what the engine called its model when it was asked last
        self._http = httpx.Client(
            base_url=self.url, timeout=TIMEOUT, trust_env=not is_loopback(self.url)
        )

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Its answer, still to be read; a key that the page was given goes along.

        Raises:
            APIError: the engine refused.
            httpx.HTTPError: it does not answer.
        """
        key = request.headers.get("Authorization")
        headers = {"Authorization": key} if key else {}
        answer = self._http.send(
            self._http.build_request(method, path, json=body, headers=headers), stream=True
        )
        if answer.is_error:
            with closing(answer):
                answer.read()
            raise api_error(answer)
        return answer

    def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Its answer, read; errors as `ask`."""
        with closing(self.ask(method, path, body)) as answer:
            return dict(json.loads(answer.read()))

    def info(self) -> dict[str, Any]:
        """What the page wants of /info; errors as `ask`."""
        model, context = self._model, self._context
        if not model:
            entry = self.json("GET", "/v1/models")["data"][0]
            model, context = entry["id"], context or entry.get("max_model_len", 0)
            self._found = model
        context = context or CONTEXT
        return {
            "model": model,
            "device": self.url,
            "max_length_limit": context,
            "chat": True,
            "supported_parameters": parameters(context),
        }

    def complete(self, native: dict[str, Any], **more: Any) -> httpx.Response:
        """Its answer to a request of /generate or /stream, which is put into OpenAI's words.

        The model is known from before; an engine that has none of that name is asked anew.

        Args:
            native: the request.
            **more: further fields in OpenAI's words.

        Raises:
            APIError, httpx.HTTPError: as `ask`.
        """
        asked = {OPENAI[name]: value for name, value in native.items() if name in OPENAI}
        body = {"prompt": native.get("prompt")} | DEFAULTS | asked | more
        given = native.get("model") or self._model
        model = given or self._found or self.info()["model"]
        try:
            return self.ask("POST", "/v1/completions", {"model": model} | body)
        except APIError as error:
            if given or error.status != 404 or (new := self.info()["model"]) == model:
                raise
        return self.ask("POST", "/v1/completions", {"model": new} | body)


def passed_on(answer: httpx.Response) -> Iterator[str]:
    """An engine's stream, with OpenAI's last line even where the engine leaves it out."""
    ended = False
    with closing(answer):
        for _, data in events(answer):
            if data == DONE:
                break
            choices = json.loads(data).get("choices", [])
            ended = ended or any(c.get("finish_reason") for c in choices)
            yield event(data)
    if ended:
        yield event(DONE)


def as_native(answer: httpx.Response, began: float, stopped: str) -> Iterator[str]:
    """A stream of /v1/completions as the service's own /stream sends it.

    Args:
        answer: the engine's.
        began: when it was asked, by `time.perf_counter`.
        stopped: what it means where the engine says `stop`: of a string, or of the text's end.
    """
    usage: dict[str, int] = {}
    reason = ""
    times: list[float] = []
    with closing(answer):
        for _, data in events(answer):
            block = {} if data == DONE else json.loads(data)
            usage = block.get("usage") or usage
            for choice in block.get("choices", []):
                reason = choice.get("finish_reason") or reason
                if choice.get("text"):
                    times.append(time.perf_counter())
                    yield event({"text": choice["text"]})
    if not reason:
        yield event({"error": "the engine's stream broke off"}, "error")
        return
    first, last = (times[0], times[-1]) if times else (time.perf_counter(),) * 2
    metadata = {
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "new_tokens": usage.get("completion_tokens", len(times)),
        "time_to_first_token_seconds": first - began,
        "tokens_per_second": (len(times) - 1) / (last - first) if last > first else 0,
        "finish_reason": stopped if reason == "stop" else reason,
    }
    yield event({"metadata": metadata}, "done")
