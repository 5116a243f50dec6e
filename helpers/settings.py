"""Generation parameters: every one defined, documented and validated here, once.

Widgets, command lines and the HTTP API all build on `GenerationSettings`, so that a
temperature of 3 is refused everywhere with the same words. (Lessons 02 and 03.) A field
says what a parameter means, what it may be and what OpenAI's API calls it; what it does
to the logits stands in `helpers.sampling`.
"""

from __future__ import annotations

from operator import getitem
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from helpers.fields import (
    BIAS_SCHEMA,
    LARGEST_BIAS,
    MAX_BIASES,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    PROMPT,
    STOP_SCHEMA,
    Allowed,
    OpenAI,
    Range,
    number,
    stop_strings,
    token_biases,
)
from helpers.fields import (
    MAX_PROMPT_CHARACTERS as MAX_PROMPT_CHARACTERS,
)
from helpers.fields import (
    check_prompt as check_prompt,
)
from system.errors import ParameterError, PromptTooLongError

DEFAULT_NEW_TOKENS = 40
LEAST_TEMPERATURE = 1e-5  # anything lower is greedy; logits divided by it would overflow


class GenerationSettings(BaseModel):
    """How to continue a prompt: every parameter, validated.

    `GenerationSettings(temperature=3)` raises `ParameterError`, a ValueError that names
    the parameter, the value and the allowed range. The prompt is no parameter; `check_prompt`
    validates it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: Annotated[int | None, OpenAI("max_tokens", default=16)] = Field(
        None, ge=1, le=4096, description="Tokens to add; the prompt is not counted."
    )
    max_length: Annotated[int | None, OpenAI("")] = Field(
        None, ge=1, le=8192, description="Tokens in all: the prompt and the new ones."
    )
    temperature: Annotated[float, OpenAI("temperature", default=1.0)] = Field(
        0.7, ge=0.0, le=2.0, description="Randomness: 0 is greedy, low is careful, high is wild."
    )
    top_k: Annotated[int, OpenAI("top_k", default=0, extra=True)] = Field(
        50, ge=0, le=1000, description="Choose among the k most probable tokens; 0 is all."
    )
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Choose among the most probable tokens that together reach p; 1 is all.",
    )
    repetition_penalty: Annotated[float, OpenAI("repetition_penalty", extra=True)] = Field(
        1.0, ge=0.5, le=2.0, description="Makes tokens that already stand there less likely; 1 off."
    )
    no_repeat_ngram_size: Annotated[int, OpenAI("no_repeat_ngram_size", extra=True)] = Field(
        0, ge=0, le=10, description="No run of this many tokens may come twice; 0 is off."
    )
    logit_bias: Annotated[
        dict[int, float],
        Allowed(
            f"at most {MAX_BIASES} token ids, each with a number from {-LARGEST_BIAS} to"
            f" {LARGEST_BIAS}"
        ),
        BeforeValidator(token_biases),
        WithJsonSchema(BIAS_SCHEMA),
    ] = Field({}, description="Token id → number added to its logit; -100 rules it out.")
    num_return_sequences: Annotated[int, OpenAI("n")] = Field(
        1, ge=1, le=16, description="How many texts to write for the prompt."
    )
    stop: Annotated[
        tuple[str, ...],
        Allowed(f"at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
                " (or one string)"),
        BeforeValidator(stop_strings),
        WithJsonSchema(STOP_SCHEMA),
    ] = Field((), description="The text ends before any of these strings.")  # fmt: skip
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="Same seed, same text on one machine; none: new text."
    )

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**parameters)
        except ValidationError as error:
            raise parameter_error(error, type(self)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: Any) -> object:
        return number(value) if _is_number(cls.model_fields[info.field_name]) else value

    @model_validator(mode="after")
    def _fit_together(self) -> GenerationSettings:
        if self.max_length is not None and self.max_new_tokens is not None:
            raise ValueError("max_length and max_new_tokens: pass one of the two, not both")
        if self.greedy and self.num_return_sequences > 1:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences}: must be 1 with temperature 0, "
                "since greedy decoding writes the same text every time"
            )
        return self

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < LEAST_TEMPERATURE

    def new_tokens(self, prompt_tokens: int, context: int) -> int:
        """How many tokens may be added to a prompt of `prompt_tokens` tokens.

        Args:
            prompt_tokens: length of the prompt in tokens.
            context: the most tokens allowed, prompt included: the model's context, or a server's
                lower limit.

        Raises:
            PromptTooLongError: the prompt alone fills the context.
            ParameterError: the asked length does not fit, or `max_length` ends within
                the prompt.
        """
        room = context - prompt_tokens
        if room < 1:
            raise PromptTooLongError(prompt_tokens, context - 1, context)
        if self.max_length is not None:
            if not prompt_tokens < self.max_length <= context:
                raise ParameterError(
                    "max_length",
                    self.max_length,
                    f"from {prompt_tokens + 1} (the prompt has {prompt_tokens} tokens, and "
                    f"max_length counts them) to {context} (the most that is allowed)",
                )
            return self.max_length - prompt_tokens
        if self.max_new_tokens is None:
            return min(DEFAULT_NEW_TOKENS, room)
        if self.max_new_tokens > room:
            raise ParameterError(
                "max_new_tokens",
                self.max_new_tokens,
                f"from 1 to {room}: the prompt has {prompt_tokens} tokens, and both together may "
                f"have {context}",
            )
        return self.max_new_tokens

    def check_tokens(self, vocabulary: int) -> None:
        """Refuse token ids that a model does not have.

        Args:
            vocabulary: how many it has.

        Raises:
            ParameterError: a larger one in `logit_bias`.
        """
        largest = max(self.logit_bias, default=0)
        if largest >= vocabulary:
            raise ParameterError(
                "logit_bias", largest, f"of token ids from 0 to {vocabulary - 1} of this model"
            )


def _is_number(field: FieldInfo) -> bool:
    """Whether a field holds a number, or None."""
    return field.annotation in (int, float, int | None)


def _mark(field: FieldInfo, kind: type[Any]) -> Any:
    """What a field is marked with, None where it has no such mark."""
    return next((m for m in field.metadata if isinstance(m, kind)), None)


def parameter_ranges() -> dict[str, Range]:
    """Name → smallest, largest, default value and meaning of every numeric parameter."""
    ranges = {}
    for name, field in GenerationSettings.model_fields.items():
        low: Any = _mark(field, Ge) or _mark(field, Gt)
        high: Any = _mark(field, Le)
        if low and high:
            least: Any = low.ge if isinstance(low, Ge) else low.gt
            ranges[name] = Range(least, high.le, field.default, field.description or "")
    return ranges


def openai_names() -> dict[str, str]:
    """Name in OpenAI's API → name of the field, of every parameter that can be passed there."""
    names = {}
    for name, field in GenerationSettings.model_fields.items():
        marker = _mark(field, OpenAI) or OpenAI(name)
        if marker.name:
            names[marker.name] = name
    return names


def openai_fields() -> dict[str, tuple[Any, FieldInfo]]:
    """Name in OpenAI's API → type and field, as `pydantic.create_model` takes them.

    Range and meaning are the field's own, the default is OpenAI's. Every parameter may be
    null there, which means its default.
    """
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    for theirs, ours in openai_names().items():
        field = GenerationSettings.model_fields[ours]
        marker = _mark(field, OpenAI) or OpenAI(ours)
        default = field.default if marker.default is None else marker.default
        description = f"Beyond OpenAI's: {field.description}" if marker.extra else field.description
        kept = [m for m in field.metadata if not isinstance(m, OpenAI)]
        kept += [BeforeValidator(number)] if _is_number(field) else []
        kind: Any = getitem(Annotated, (field.annotation, *kept)) if kept else field.annotation
        fields[theirs] = (kind | None, Field(default, description=description))
    return fields


def from_openai(
    parameters: dict[str, Any], defaults: dict[str, Any] | None = None
) -> GenerationSettings:
    """Settings from parameters by OpenAI's names, with OpenAI's defaults for what is not given.

    Args:
        parameters: OpenAI's name → value; None is as good as not given.
        defaults: OpenAI's name → default of a route that has another than `openai_fields`:
            a chat has no `max_tokens` unless asked.

    Raises:
        ParameterError: as `GenerationSettings`, under OpenAI's name.
    """
    names = openai_names()
    used = {theirs: field.default for theirs, (_, field) in openai_fields().items()}
    used |= defaults or {}
    used |= {theirs: value for theirs, value in parameters.items() if value is not None}
    try:
        return GenerationSettings(**{names.get(n, n): value for n, value in used.items()})
    except ParameterError as error:
        theirs = next((t for t, o in names.items() if o == error.parameter), error.parameter)
        raise ParameterError(theirs, error.value, error.allowed) from None


def allowed(name: str, model: type[BaseModel] = GenerationSettings) -> str:
    """The allowed values of a parameter, in words.

    Args:
        name: of the parameter, or of none that is known.
        model: whose parameters are known.
    """
    if name == "prompt":
        return PROMPT
    if name not in GenerationSettings.model_fields:
        return f"one of the known parameters: {', '.join(model.model_fields)}"
    field = GenerationSettings.model_fields[name]
    if words := _mark(field, Allowed):
        return str(words.words)
    found = parameter_ranges()[name]
    whole = "int" in str(field.annotation)
    above = "above" if _mark(field, Gt) else "from"
    return f"a {'whole ' if whole else ''}number {above} {found.minimum} to {found.maximum}"


def parameter_error(error: ValidationError, model: type[BaseModel]) -> ParameterError | ValueError:
    """The first mistake that pydantic found, in the words of this course.

    Args:
        error: what pydantic raised.
        model: the class whose fields were validated.
    """
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return ValueError(first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return ParameterError(name, None, f"given: {allowed(name)}")
    return ParameterError(name, first["input"], allowed(name, model))
