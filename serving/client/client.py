"""A typed client of this course's API, and of what other engines share with it.

    with Client("http://127.0.0.1:5000") as client:
        print(client.generate("Machine learning is", max_new_tokens=20).text)

Health, generate and stream, with retries (lesson 06); complete and chat by OpenAI's API, which
llama.cpp, vLLM and others speak as well (lesson 10).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import httpx

from serving.client.answers import Answer, Pieces, api_error, wait_seconds
from serving.client.keys import bearer
from system.environment import is_loopback

RETRY_STATUSES = {429, 503}


class Client:
    """Calls one server; safe to use from several threads."""

    def __init__(
        self, url: str, timeout: float = 120, retries: int = 3, api_key: str | None = None
    ) -> None:
        """A client that connects when it is first used.

        Args:
            url: the server's address, such as http://127.0.0.1:5000.
            timeout: seconds to wait for an answer.
            retries: how often a request that meets a full queue is sent again.
            api_key: for a server with API keys; None takes LLM_API_KEY from the environment.

        Raises:
            ParameterError: what is given can be no key.
        """
        self.retries = retries
        # A proxy of the environment stands for the internet: this machine is not behind it.
        self._http = httpx.Client(
            base_url=url, timeout=timeout, trust_env=not is_loopback(url), headers=bearer(api_key)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """The server's /health, healthy or not; other engines say less in it, or nothing."""
        response = self._http.get("/health")
        said = dict(response.json()) if response.content else {}
        if not response.is_error:
            return said | {"status": "healthy"}
        return {"status": "unhealthy", "error": f"HTTP {response.status_code}"} | said

    def info(self) -> dict[str, Any]:
        """The server's /info."""
        return dict(self._send("GET", "/info").json())

    def wait_until_ready(self, timeout: float = 120) -> dict[str, Any]:
        """Ask /health until it is healthy; returns it.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        end, last = time.monotonic() + timeout, "no answer"
        while time.monotonic() < end:
            try:
                health = self.health()
                if health["status"] == "healthy":
                    return health
                last = health["error"]
            except httpx.TransportError as error:
                last = str(error)
            time.sleep(0.1)
        raise TimeoutError(f"the server was not ready within {timeout:g} s: {last}")

    def generate(self, prompt: str, **parameters: Any) -> Answer:
        """Continue a prompt.

        Args:
            prompt: the text to continue.
            **parameters: any field of `GenerationSettings`.

        Raises:
            APIError: refused (status 400 names the parameter) or failed.
        """
        answer = self._send("POST", "/generate", {"prompt": prompt} | parameters).json()
        return Answer(
            text=answer["generated_text"],
            texts=tuple(answer["generated_texts"]),
            seconds=answer["inference_time_seconds"],
            parameters=answer["parameters"],
            metadata=answer["metadata"],
        )

    def complete(self, prompt: str, **parameters: Any) -> str:
        """The new text after a prompt by OpenAI's API, on any engine; errors as `generate`.

        Args:
            prompt: the text to continue.
            **parameters: as OpenAI's reference names them, such as max_tokens.
        """
        return str(self._first("/v1/completions", {"prompt": prompt} | parameters)["text"])

    def chat(self, messages: list[dict[str, str]], **parameters: Any) -> str:
        """The answer to a chat by OpenAI's API, on any engine; otherwise as `complete`."""
        asked = {"messages": messages} | parameters
        return str(self._first("/v1/chat/completions", asked)["message"]["content"])

    def _first(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "model" not in body:
            body["model"] = self._send("GET", "/v1/models").json()["data"][0]["id"]
        return dict(self._send("POST", path, body).json()["choices"][0])

    def stream(self, prompt: str, **parameters: Any) -> Pieces:
        """The same, piece by piece.

        Raises:
            APIError: as `generate`.
        """
        started = time.perf_counter()
        body = {"prompt": prompt} | parameters
        return Pieces(self._send("POST", "/stream", body, stream=True), started)

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, stream: bool = False
    ) -> httpx.Response:
        headers = {"Accept": "text/event-stream"} if stream else {}
        request = self._http.build_request(method, path, json=body, headers=headers)
        for attempt in range(self.retries + 1):
            response = self._http.send(request, stream=stream)
            if response.status_code not in RETRY_STATUSES or attempt == self.retries:
                break
            response.read()
            time.sleep(wait_seconds(response, attempt))
        if response.is_error:
            response.read()
            raise api_error(response)
        return response
