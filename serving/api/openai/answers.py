"""What the OpenAI-compatible routes answer."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi3.models import MediaType, Schema
from pydantic import BaseModel, Field

from serving.api.schemas import EVENT


class OpenAIErrorBody(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorBody


class PromptTokensDetails(BaseModel):
    """Where a prompt's tokens came from."""

    cached_tokens: int = Field(description="Not computed again: an earlier prompt began alike.")


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens: int
    total_tokens: int


class Logprobs(BaseModel):
    """Log-probabilities in the form of /v1/completions, one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Characters of the text before the token.")
    bytes: list[list[int]] = Field(description="Beyond OpenAI's: the token's bytes of UTF-8.")


class CompletionChoice(BaseModel):
    """One of the texts."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None


# Says in /openapi.json that with stream=true the answer is a stream of events.
_OR_EVENTS: Any = {
    "openapi_extra": {
        "description": "The answer; with stream=true its pieces as events, then [DONE].",
        "content": {"text/event-stream": MediaType(schema=Schema(**EVENT))},
    }
}


class Completion(BaseModel):
    """The answer of /v1/completions."""

    model_config = _OR_EVENTS

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(description="Unix time in seconds.")
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class AssistantMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class TopLogprob(BaseModel):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    """A token of a chat's answer."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities in the form of /v1/chat/completions."""

    content: list[ChatLogprob]
    refusal: None = None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The answer of /v1/chat/completions."""

    model_config = _OR_EVENTS

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelEntry(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The answer of /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]
