"""Generation parameters: every one defined, documented and validated here, once.

Widgets, command lines and the HTTP API all build on `GenerationSettings`, so that a
temperature of 3 is refused everywhere with the same words. (Lessons 02 and 03.) A field
says what a parameter means, what it may be and what OpenAI's API calls it; what it does
to the logits stands in `helpers.sampling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from annotated_types import Ge, Gt, Le
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from helpers.errors import ParameterError, PromptTooLongError

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

DEFAULT_NEW_TOKENS = 40
LEAST_TEMPERATURE = 1e-5  # anything lower is greedy; logits divided by it would overflow
MAX_PROMPT_CHARACTERS = 50_000
MAX_STOP_STRINGS, MAX_STOP_CHARACTERS = 4, 100


class Range(NamedTuple):
    """What a numeric parameter may be: for sliders, error messages and the API's /info."""

    minimum: float
    maximum: float
    default: float | None
    meaning: str


@dataclass(frozen=True)
class Allowed:
    """Marks a field that is no number: what it may be, in words."""

    words: str


@dataclass(frozen=True)
class OpenAI:
    """Marks a field that OpenAI's API calls or sets otherwise. (Lesson 06.)

    Attributes:
        name: the name there; "" where the API has nothing of the kind and takes nothing.
        default: the default there; None is the field's own.
        extra: whether OpenAI's own service lacks it: clients pass it in `extra_body`.
    """

    name: str
    default: Any = None
    extra: bool = False


_STRING = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
STOP_SCHEMA = {
    "anyOf": [
        _STRING,
        {"type": "array", "items": _STRING, "maxItems": MAX_STOP_STRINGS},
        {"type": "null"},
    ]
}


class GenerationSettings(BaseModel):
    """How to go on from a prompt: every parameter, validated.

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
    num_return_sequences: Annotated[int, OpenAI("n")] = Field(
        1, ge=1, le=16, description="How many texts to write for the prompt."
    )
    stop: Annotated[
        tuple[str, ...],
        Allowed(f"at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
                " (or one string)"),
        WithJsonSchema(STOP_SCHEMA),
    ] = Field((), description="The text ends before any of these strings.")  # fmt: skip
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="Same seed, same text; none: another text each time."
    )

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**parameters)
        except ValidationError as error:
            raise parameter_error(error, type(self)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: Any) -> object:
        """True is not 1 and "0.7" is not 0.7: guessing what was meant hides mistakes."""
        annotation = str(cls.model_fields[info.field_name].annotation)
        if isinstance(value, bool | str | bytes) and ("int" in annotation or "float" in annotation):
            raise ValueError(f"{type(value).__name__} given for a number")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_strings(cls, stop: object) -> object:
        if stop is None:
            return ()
        strings = (stop,) if isinstance(stop, str) else stop
        if not isinstance(strings, list | tuple) or not all(isinstance(s, str) for s in strings):
            raise ValueError("not strings")
        if len(strings) > MAX_STOP_STRINGS:
            raise ValueError("too many")
        if any(not 0 < len(s) <= MAX_STOP_CHARACTERS for s in strings):
            raise ValueError("empty or too long")
        return tuple(strings)

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

    def logits_processors(self) -> LogitsProcessorList:
        """What these settings do to the logits, as transformers' own processors, in its order.

        Each takes (ids of shape (rows, tokens), logits of shape (rows, vocabulary)) and
        returns changed logits; a processor that changes nothing is left out.
        """
        from transformers import (
            LogitsProcessorList,
            NoRepeatNGramLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        processors = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(self.no_repeat_ngram_size))
        if self.greedy:
            processors.append(TopKLogitsWarper(1))
            return processors
        if self.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            processors.append(TopPLogitsWarper(self.top_p))
        return processors

    def generate_arguments(self) -> dict[str, Any]:
        """The same settings as keyword arguments of transformers' `generate`."""
        arguments: dict[str, Any] = {
            "do_sample": not self.greedy,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "num_return_sequences": self.num_return_sequences,
        }
        if not self.greedy:  # generate warns about a temperature that it will not use
            arguments |= {
                "temperature": self.temperature,
                "top_k": self.top_k,
                "top_p": self.top_p,
            }
        return arguments


def check_prompt(prompt: object) -> str:
    """The prompt itself, if a tokenizer can read it.

    Raises:
        ParameterError: no text, blank, too long, or with characters that are no text.
    """
    if not isinstance(prompt, str) or not (
        prompt.strip()
        and len(prompt) <= MAX_PROMPT_CHARACTERS
        and "\x00" not in prompt
        and _is_utf8(prompt)
    ):
        raise ParameterError("prompt", prompt, allowed("prompt"))
    return prompt


def _is_utf8(text: str) -> bool:
    """Whether it can be encoded: half a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def parameter_ranges() -> dict[str, Range]:
    """Name → smallest, largest, default value and meaning of every numeric parameter."""
    ranges = {}
    for name, field in GenerationSettings.model_fields.items():
        low: Any = next((b.ge if isinstance(b, Ge) else b.gt for b in field.metadata
                         if isinstance(b, Ge | Gt)), None)  # fmt: skip
        high: Any = next((b.le for b in field.metadata if isinstance(b, Le)), None)
        if low is not None and high is not None:
            ranges[name] = Range(low, high, field.default, field.description or "")
    return ranges


def openai_names() -> dict[str, str]:
    """Name in OpenAI's API → name of the field, of every parameter that can be passed there."""
    names = {}
    for name, field in GenerationSettings.model_fields.items():
        marker = next((m for m in field.metadata if isinstance(m, OpenAI)), OpenAI(name))
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
        marker = next((m for m in field.metadata if isinstance(m, OpenAI)), OpenAI(ours))
        default = field.default if marker.default is None else marker.default
        description = f"Beyond OpenAI's: {field.description}" if marker.extra else field.description
        kept = [m for m in field.metadata if not isinstance(m, OpenAI)]
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
        return (
            f"text of 1 to {MAX_PROMPT_CHARACTERS} characters, not blank, without null characters"
        )
    if name not in GenerationSettings.model_fields:
        return f"one of the known parameters: {', '.join(model.model_fields)}"
    field = GenerationSettings.model_fields[name]
    words = next((m.words for m in field.metadata if isinstance(m, Allowed)), None)
    if words is not None:
        return words
    found = parameter_ranges()[name]
    whole = "int" in str(field.annotation)
    above = "above" if any(isinstance(b, Gt) for b in field.metadata) else "from"
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
