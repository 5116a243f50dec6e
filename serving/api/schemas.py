"""What the native routes take and answer: validation and /openapi.json in one.

Generation parameters and their ranges come from `GenerationSettings`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema, field_validator

from helpers.settings import (
    MAX_PROMPT_CHARACTERS,
    GenerationSettings,
    check_prompt,
    openai_fields,
    openai_names,
)
from serving.models import MIB, Models, State
from serving.service import Service

API_VERSION = "1.0.0"
LENGTHS = ("max_length", "max_new_tokens")
BEYOND = "Beyond OpenAI's"  # how `openai_fields` begins the meaning of what OpenAI has not


# What the validators check, in JSON Schema's words (for /openapi.json). That a text may not
# be blank stays in words: a pattern for it makes test tools search for minutes.
TEXT = {
    "type": "string",
    "minLength": 1,
    "description": f"Not blank, at most {MAX_PROMPT_CHARACTERS} characters.",
}


class GenerateRequest(GenerationSettings):
    """A prompt and how to continue it; only the prompt is required.

    `max_length` counts the prompt's tokens and the new ones, `max_new_tokens` only the
    new ones: pass one of the two or neither. What a length may be at most depends on the
    prompt and on the server's limit (`/info`).
    """

    prompt: Annotated[str, WithJsonSchema(TEXT)] = Field(
        description="The text to continue, without blanks around it."
    )

    model: str | None = Field(
        None, description="As /models names it; without a name it is the server's default."
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_surrounding_blanks(cls, prompt: object) -> str:
        return check_prompt(prompt).strip()

    def settings(self) -> GenerationSettings:
        """What is asked of the text; only what the request names is set."""
        given = self.model_dump(exclude={"prompt", "model"}, exclude_unset=True)
        return GenerationSettings(**given)


class Metadata(BaseModel):
    """How a text came about."""

    model: str
    device: str
    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompt: not computed again for this request.")
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
    """The process answers, and its engine runs or is still to come."""

    status: Literal["alive"] = "alive"


class ModelState(BaseModel):
    """One of the server's models."""

    name: str
    default: bool = Field(description="What requests get that name no model.")
    state: State = Field(description="What is not loaded comes when a request names it.")
    memory_mib: int | None = Field(description="By the formula; null before it is first needed.")
    requests: int = Field(description="That run or wait for it now.")
    error: str | None = Field(description="Why it could not be loaded the last time.")


class Which(BaseModel):
    """Which model is asked about."""

    model: str | None = Field(
        None, description="As /models names it, and loaded; without a name it is the default."
    )


class ModelStates(BaseModel):
    """Every model of this server."""

    memory_budget_mib: int = Field(description="That all loaded models may take together.")
    models: list[ModelState]


class OpenAIName(BaseModel):
    """What OpenAI's API makes of a parameter."""

    name: str
    default: int | float | None = Field(None, description="Where a request names none there.")
    extra: bool = Field(description="Beyond OpenAI's own: its client passes it in extra_body.")


class ParameterInfo(BaseModel):
    """One parameter of /generate."""

    type: Literal["integer", "number", "string", "strings", "object"]
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    above: bool = Field(False, description="The minimum itself is not allowed.")
    default: int | float | str | list[str] | dict[str, float] | None = None
    openai: OpenAIName | None = Field(None, description="None: /v1/completions has it not.")
    restriction: str | None = Field(None, description="All that it may be with this engine.")


class PrefixCacheInfo(BaseModel):
    """What is kept of prompts, for those that begin alike."""

    capacity_bytes: int = Field(description="0: nothing is kept.")
    used_bytes: int
    prompt_tokens: int = Field(description="Of all prompts since the start.")
    cached_tokens: int = Field(description="Of these, not computed again.")
    evicted_blocks: int = Field(description="Blocks of 16 tokens that made room for others.")


class Info(BaseModel):
    """What this server runs and allows."""

    api_version: str
    model: str
    device: str
    engine: Literal["torch", "ctranslate2"]
    dtype: Literal["float32", "bfloat16", "float16", "int8"] = Field(description="Of the weights.")
    cuda_available: bool
    max_length_limit: int = Field(description="Most tokens, prompt and new ones together.")
    default_max_length: int
    default_temperature: float
    slots: int = Field(description="Texts written at the same time.")
    queue_length: int = Field(description="Texts that may wait for a slot.")
    request_timeout_seconds: float = Field(description="Longest time of a request, waiting too.")
    batching: Literal["continuous", "static", "dynamic"]
    chat: bool = Field(description="The model has a chat template: /v1/chat/completions answers.")
    prefix_cache: PrefixCacheInfo
    structured_outputs: list[str] = Field(description="Forms that /v1 can write texts in.")
    supported_parameters: dict[str, ParameterInfo]


def model_states(models: Models) -> ModelStates:
    """What is loaded now."""
    states = [
        ModelState(
            name=name,
            default=held.service is models.first,
            state=held.state,
            memory_mib=held.needs // MIB or None,
            requests=held.users,
            error=held.error or None,
        )
        for name, held in models.known()
    ]
    return ModelStates(memory_budget_mib=models.budget // MIB, models=states)


def parameter_info(service: Service) -> dict[str, ParameterInfo]:
    """Every parameter of /generate, with this server's ranges and defaults.

    Args:
        service: a service that is ready.
    """
    here = {
        "temperature": service.config.default_temperature,
        "max_length": service.default_length,
    }
    theirs = {ours: name for name, ours in openai_names().items()}
    fields = openai_fields()
    found = {}
    schemas = GenerateRequest.model_json_schema()["properties"]
    del schemas["model"]  # says who writes, not how
    for name, schema in ({"prompt": schemas.pop("prompt")} | schemas).items():
        shape = next((s for s in schema.get("anyOf", []) if s["type"] != "null"), schema)
        default, openai = here.get(name, schema.get("default")), None
        if name in theirs:
            field = fields[theirs[name]][1]
            number = field.default if isinstance(field.default, int | float) else None
            extra = (field.description or "").startswith(BEYOND)
            openai = OpenAIName(name=theirs[name], default=number, extra=extra)
        found[name] = ParameterInfo(
            type="strings" if name == "stop" else shape["type"],
            description=schema["description"],
            minimum=shape.get("minimum", shape.get("exclusiveMinimum")),
            maximum=service.largest(name) if name in LENGTHS else shape.get("maximum"),
            above="exclusiveMinimum" in shape,
            default=default,
            openai=openai,
            restriction=service.engine.restrictions.get(name),
        )
    return found


# One server-sent event of a stream.
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
