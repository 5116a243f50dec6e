"""What /v1/completions takes: every parameter of OpenAI's reference, served or refused.

https://platform.openai.com/docs/api-reference/completions. What chats take besides stands in
`chat`; `docs/openai.md` is written from these models.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

from helpers.settings import GenerationSettings, from_openai, openai_names
from serving.api.openai.fields import Sampling, ignored, not_offered, off, whole
from serving.api.openai.structure import ResponseFormat, StructuredOutputs, structure
from serving.api.schemas import TEXT
from serving.engine.grammar import Structure
from system.errors import ParameterError

MAX_TEXTS = 64  # texts that one request may ask for: prompts times n
COMPLETION_TOKENS = 16  # new tokens of a completion that names no length, as at OpenAI


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool | None = Field(False, strict=True, description="End with a block of usage.")
    include_obfuscation: off(False) = not_offered("blocks are not padded")  # type: ignore[valid-type]


class OpenAIRequest(Sampling):
    """What completions and chats have in common; parameters of no reference are refused."""

    model: str = Field(description="As /v1/models names it.")
    stream: bool | None = Field(False, strict=True, description="Send pieces as they are made.")
    stream_options: StreamOptions | None = Field(None, description="Only with stream: true.")
    frequency_penalty: off(0) = not_offered("use repetition_penalty")  # type: ignore[valid-type]
    presence_penalty: off(0) = not_offered("use repetition_penalty")  # type: ignore[valid-type]
    response_format: ResponseFormat | None = Field(
        None, description="text, json_object (any JSON object) or json_schema."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="Beyond OpenAI's: one of json (a schema), regex, choice, as in vLLM."
    )
    user: str | None = ignored()
    ignore_eos: bool = Field(
        False, strict=True, description="Beyond OpenAI's: go on after end-of-text (load tests)."
    )
    _settings: GenerationSettings = PrivateAttr()
    _structure: Structure | None = PrivateAttr()

    @model_validator(mode="after")
    def _read_settings(self) -> OpenAIRequest:
        if self.stream_options is not None and not self.stream:
            raise ParameterError("stream_options", "…", "left out unless stream is true")
        self._structure = structure(self.response_format, self.structured_outputs)
        if self._structure and self.ignore_eos:
            raise ParameterError("ignore_eos", True, f"false with {self._structure.parameter}")
        given = {name: getattr(self, name) for name in openai_names()}
        given["max_tokens"] = self.length
        try:
            self._settings = from_openai(given, defaults={"max_tokens": None})
        except ParameterError as error:
            if error.parameter != "max_tokens":
                raise
            raise ParameterError(self.length_name, error.value, error.allowed) from None
        except ValueError:  # the one rule that concerns two parameters
            wanted = "1 with temperature 0, since greedy decoding writes the same text every time"
            raise ParameterError("n", self.n, wanted) from None
        return self

    @property
    def length(self) -> Any:
        """The new tokens asked for, or None."""
        return self.max_tokens

    @property
    def length_name(self) -> str:
        """The name that this length has in the request."""
        return "max_tokens"

    @property
    def settings(self) -> GenerationSettings:
        """These parameters as the engine knows them."""
        return self._settings

    @property
    def structure(self) -> Structure | None:
        """The form that the text must have, if any."""
        return self._structure


Text = Annotated[str, WithJsonSchema(TEXT)]
TokenIds = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(OpenAIRequest):
    """POST /v1/completions: continue one or several prompts."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_TEXTS)]
    ) = Field(description="A text, a list of texts, token ids, or a list of lists of ids.")
    max_tokens: whole(0, 4096) = Field(  # type: ignore[valid-type]
        None, description=f"Most new tokens; {COMPLETION_TOKENS} if not given."
    )
    logprobs: whole(0, 5) = Field(  # type: ignore[valid-type]
        None, description="Alternatives for each token."
    )
    echo: bool | None = Field(False, strict=True, description="Give the prompt back too.")
    best_of: whole(1, 16) = Field(  # type: ignore[valid-type]
        None, description="Only as many as n: the best is not chosen here."
    )
    suffix: off("") = not_offered("texts are not filled into a gap")  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _best_of_is_n(self) -> CompletionRequest:
        if self.best_of not in (None, self.settings.num_return_sequences):
            raise ParameterError(
                "best_of", self.best_of, "the same as n: choosing the best is not supported here"
            )
        return self

    @property
    def length(self) -> int | None:
        """As in the base; 0 is no length but says that only the prompt is asked for."""
        return self.max_tokens or None
