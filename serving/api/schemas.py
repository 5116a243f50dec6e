"""What the API takes and answers, as pydantic models: validation and /openapi.json in one.

Generation parameters and their ranges come from `GenerationSettings`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from flask_openapi3.models import MediaType, Schema
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    WithJsonSchema,
    field_validator,
)

from helpers.settings import (
    DEFAULT_NEW_TOKENS,
    MAX_PROMPT_CHARACTERS,
    STOP_SCHEMA,
    GenerationSettings,
    check_prompt,
)
from serving.config import Config

API_VERSION = "1.0.0"
MAX_TEXTS = 64  # texts that one request may ask for: prompts times n


# What the validators check, in JSON Schema's words (for /openapi.json). That a text may not
# be blank stays in words: a pattern for it makes test tools search for minutes.
_TEXT = {
    "type": "string",
    "minLength": 1,
    "description": f"Not blank, at most {MAX_PROMPT_CHARACTERS} characters.",
}


class GenerateRequest(GenerationSettings):
    """A prompt and how to go on from it; only the prompt is required.

    `max_length` counts the prompt's tokens and the new ones, `max_new_tokens` only the
    new ones: pass one of the two or neither. What a length may be at most depends on the
    prompt and on the server's limit (`/info`).
    """

    prompt: Annotated[str, WithJsonSchema(_TEXT)] = Field(
        description="The text to go on from, without blanks around it."
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_surrounding_blanks(cls, prompt: object) -> str:
        return check_prompt(prompt).strip()

    def with_defaults(self, config: Config, prompt_tokens: int) -> GenerateRequest:
        """The same request with this server's defaults for what it does not name.

        Args:
            config: holds DEFAULT_TEMPERATURE and DEFAULT_MAX_LENGTH.
            prompt_tokens: where the prompt alone reaches DEFAULT_MAX_LENGTH, the course's
                usual number of new tokens is added, as far as the limit leaves room.
        """
        changes: dict[str, Any] = {}
        if "temperature" not in self.model_fields_set:
            changes["temperature"] = config.default_temperature
        if self.max_length is None and self.max_new_tokens is None:
            if prompt_tokens < config.default_max_length:
                changes["max_length"] = config.default_max_length
            else:
                room = config.max_length_limit - prompt_tokens
                changes["max_new_tokens"] = max(1, min(DEFAULT_NEW_TOKENS, room))
        return self.model_copy(update=changes)


class Metadata(BaseModel):
    """How a text came about."""

    model: str
    device: str
    prompt_tokens: int
    new_tokens: int = Field(description="Of the first text, if several were asked for.")
    total_tokens: int
    time_to_first_token_seconds: float = Field(description="Waiting in the queue included.")
    tokens_per_second: float = Field(description="After the first token; 0 if there is one only.")
    finish_reason: Literal["length", "end_of_text", "stop"]


class GenerateResponse(BaseModel):
    """The text written for a prompt."""

    success: Literal[True] = True
    prompt: str
    generated_text: str = Field(description="The prompt and the new text.")
    generated_texts: list[str] = Field(description="All of them: num_return_sequences.")
    inference_time_seconds: float
    parameters: dict[str, Any] = Field(description="As used, the seed included.")
    metadata: Metadata


class Error(BaseModel):
    """What went wrong, for a person to read."""

    error: str
    parameter: str | None = Field(None, description="Which parameter is wrong.")
    allowed: str | None = Field(None, description="What it may be.")
    available_endpoints: list[str] | None = Field(None, description="At a 404.")


class Health(BaseModel):
    """Whether requests can be served."""

    status: Literal["healthy"] = "healthy"
    model: str
    device: str
    cuda_available: bool


class Unhealthy(BaseModel):
    """Why requests cannot be served."""

    status: Literal["unhealthy"] = "unhealthy"
    error: str


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ParameterInfo(BaseModel):
    """One parameter of /generate."""

    type: Literal["integer", "number", "string", "strings", "object"]
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    default: int | float | str | list[str] | dict[str, float] | None = None


class Info(BaseModel):
    """What this server runs and allows."""

    api_version: str
    model: str
    device: str
    cuda_available: bool
    max_length_limit: int = Field(description="Most tokens, prompt and new ones together.")
    default_max_length: int
    default_temperature: float
    slots: int = Field(description="Texts written at the same time.")
    batching: Literal["step", "static"]
    supported_parameters: dict[str, ParameterInfo]


def parameter_info(config: Config, limit: int) -> dict[str, ParameterInfo]:
    """Every parameter of /generate, with this server's ranges and defaults.

    Args:
        config: this server's configuration.
        limit: most tokens of a request, prompt included.
    """
    found = {}
    defaults = {
        "temperature": config.default_temperature,
        "max_length": config.default_max_length,
    }
    schemas = GenerateRequest.model_json_schema()["properties"]
    for name, schema in ({"prompt": schemas.pop("prompt")} | schemas).items():
        number = next((s for s in schema.get("anyOf", []) if "maximum" in s), schema)
        kind = "strings" if name == "stop" else number.get("type", "string")
        top = number.get("maximum")
        if name in ("max_length", "max_new_tokens"):
            top = limit if name == "max_length" else limit - 1
        found[name] = ParameterInfo(
            type=cast(Any, kind),
            description=schema["description"],
            minimum=number.get("minimum", number.get("exclusiveMinimum")),
            maximum=top,
            default=defaults.get(name, schema.get("default")),
        )
    return found


# The OpenAI-compatible part: https://platform.openai.com/docs/api-reference/completions


def _number(value: object) -> object:
    """True is not 1 and "0.7" is not 0.7."""
    if isinstance(value, bool | str):
        raise ValueError(f"{type(value).__name__} given for a number")
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number)]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = Field(False, strict=True, description="End with a block of usage.")


class _OpenAIRequest(BaseModel):
    """What completions and chats have in common; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="As /v1/models names it.")
    temperature: Float | None = Field(1.0, ge=0, le=2)
    top_p: Float | None = Field(1.0, gt=0, le=1)
    n: Int = Field(1, ge=1, le=16, description="Texts for each prompt.")
    stop: Annotated[str | list[str] | None, WithJsonSchema(STOP_SCHEMA)] = Field(
        None, description="The text ends before any of these strings."
    )
    seed: Int | None = Field(None, ge=0, le=2**63 - 1)
    stream: bool | None = Field(False, strict=True)
    stream_options: StreamOptions | None = None
    frequency_penalty: Float | None = Field(0, ge=0, le=0, description="Not offered: 0 only.")
    presence_penalty: Float | None = Field(0, ge=0, le=0, description="Not offered: 0 only.")
    user: str | None = Field(None, description="Ignored.")
    top_k: Int = Field(0, ge=0, le=1000, description="Beyond OpenAI's: 0 is off.")
    repetition_penalty: Float = Field(1.0, ge=0.5, le=2, description="Beyond OpenAI's: 1 is off.")
    ignore_eos: bool = Field(
        False, strict=True, description="Beyond OpenAI's: go on after end-of-text (load tests)."
    )

    def settings(self, new_tokens: int | None) -> GenerationSettings:
        """These parameters as the engine knows them; a ParameterError if they do not fit."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerationSettings(
            max_new_tokens=new_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else self.top_p,
            repetition_penalty=self.repetition_penalty,
            num_return_sequences=self.n,
            stop=tuple(stop),
            seed=self.seed,
        )


Text = Annotated[str, WithJsonSchema(_TEXT)]
TokenIds = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(_OpenAIRequest):
    """POST /v1/completions: go on from one or several prompts."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_TEXTS)]
    ) = Field(description="A text, a list of texts, token ids, or a list of lists of ids.")
    max_tokens: Int | None = Field(16, ge=1, le=4096, description="Most new tokens.")
    logprobs: Int | None = Field(None, ge=0, le=5, description="Alternatives for each token.")
    echo: bool | None = Field(False, strict=True, description="Give the prompt back too.")


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    name: str | None = None


class ChatRequest(_OpenAIRequest):
    """POST /v1/chat/completions: only for models whose tokenizer has a chat template."""

    messages: list[Message] = Field(min_length=1, max_length=256)
    max_tokens: Int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: Int | None = Field(None, ge=1, le=4096)


class OpenAIErrorBody(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorBody


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Logprobs(BaseModel):
    """Log-probabilities in the form of /v1/completions, one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One of the texts."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None


# One server-sent event of a stream.
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
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


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: None = None
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
