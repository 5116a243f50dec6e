"""What /v1/chat/completions takes: every parameter of OpenAI's reference, served or refused.

https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from helpers.settings import MAX_PROMPT_CHARACTERS, check_prompt
from serving.api.openai.fields import Sampling, ignored, not_offered, off, whole
from serving.api.openai.requests import OpenAIRequest
from system.errors import ParameterError

LENGTH = Sampling.model_json_schema()["properties"]["max_tokens"]


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=256)]
    name: str | None = ignored()
    refusal: off() = not_offered()  # type: ignore[valid-type]
    audio: off() = not_offered()  # type: ignore[valid-type]
    function_call: off() = not_offered()  # type: ignore[valid-type]
    tool_calls: off([]) = not_offered()  # type: ignore[valid-type]

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, message: Any) -> Any:
        """Say of what OpenAI's reference knows, and this server does not, that it is not here."""
        if not isinstance(message, dict):
            return message
        if message.get("role") in ("tool", "function"):
            raise ParameterError(
                "messages", message["role"], "of people and models: tools are not supported here"
            )
        content = message.get("content", "")
        if content is None:  # as in an assistant's turn that only calls tools
            wanted = 'text in each "content", or "": null stands beside tool calls, which are'
            raise ParameterError("messages", None, f"{wanted} not supported here")
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else part
            if kind in ("image_url", "input_audio", "file", "refusal"):
                raise ParameterError("messages", kind, "text: other parts are not supported here")
        return message

    @property
    def text(self) -> str:
        """The content as one text.

        Raises:
            ParameterError: it is no text that could be encoded.
        """
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        if text.strip() or len(text) > MAX_PROMPT_CHARACTERS:  # an empty one is a text here
            try:
                check_prompt(text)
            except ParameterError as error:
                raise ParameterError("messages", text, error.allowed) from None
        return text


class ChatRequest(OpenAIRequest):
    """POST /v1/chat/completions: only for models whose tokenizer has a chat template."""

    messages: list[Message] = Field(min_length=1, max_length=256, description="The chat so far.")
    max_completion_tokens: Annotated[Any, WithJsonSchema(LENGTH)] = Field(
        None, description="Tokens to add; goes before max_tokens, its older name."
    )
    logprobs: bool | None = Field(
        False, strict=True, description="Tell how probable each token was."
    )
    top_logprobs: whole(0, 20) = Field(  # type: ignore[valid-type]
        None, description="Alternatives for each token; only with logprobs."
    )
    tools: off([]) = not_offered()  # type: ignore[valid-type]
    tool_choice: off("none", "auto") = not_offered()  # type: ignore[valid-type]
    parallel_tool_calls: off(True, False) = not_offered()  # type: ignore[valid-type]
    functions: off([]) = not_offered()  # type: ignore[valid-type]
    function_call: off("none", "auto") = not_offered()  # type: ignore[valid-type]
    modalities: off(["text"]) = not_offered()  # type: ignore[valid-type]
    audio: off() = not_offered()  # type: ignore[valid-type]
    prediction: off() = not_offered()  # type: ignore[valid-type]
    reasoning_effort: off("none") = not_offered()  # type: ignore[valid-type]
    verbosity: off("medium") = not_offered()  # type: ignore[valid-type]
    web_search_options: off() = not_offered()  # type: ignore[valid-type]
    store: off(False) = not_offered("nothing is kept")  # type: ignore[valid-type]
    service_tier: off("auto", "default") = not_offered()  # type: ignore[valid-type]
    metadata: dict[str, str] | None = ignored()
    safety_identifier: str | None = ignored()
    prompt_cache_key: str | None = ignored()
    prompt_cache_retention: str | None = ignored()

    @model_validator(mode="after")
    def _read_messages(self) -> ChatRequest:
        for message in self.messages:
            _ = message.text  # says what is wrong with it
        if self.top_logprobs is not None and not self.logprobs:
            raise ParameterError(
                "top_logprobs", self.top_logprobs, "left out unless logprobs is true"
            )
        return self

    @property
    def length(self) -> Any:
        """The new tokens asked for, or None."""
        given = self.max_completion_tokens
        return self.max_tokens if given is None else given

    @property
    def length_name(self) -> str:
        """The name that this length has in the request."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
