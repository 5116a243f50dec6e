"""The form that a text must have: OpenAI's `response_format`, vLLM's `structured_outputs`.

https://platform.openai.com/docs/guides/structured-outputs,
https://docs.vllm.ai/en/latest/features/structured_outputs/.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.api.openai.fields import ignored
from serving.engine.grammar import Structure
from system.errors import ParameterError

KINDS = ("json", "regex", "choice")
MAX_DEPTH = 8  # objects and lists within each other, where no schema says what is in them


def any_object() -> dict[str, Any]:
    """The schema of any JSON object, `MAX_DEPTH` levels deep."""
    levels: dict[str, Any] = {"v0": {"type": ["string", "number", "boolean", "null"]}}
    for depth in range(1, MAX_DEPTH):
        inner = {"$ref": f"#/$defs/v{depth - 1}"}
        kinds = (
            {"type": "array", "items": inner},
            {"type": "object", "additionalProperties": inner},
        )
        levels[f"v{depth}"] = {"anyOf": [{"$ref": "#/$defs/v0"}, *kinds]}
    top = {"$ref": f"#/$defs/v{MAX_DEPTH - 1}"}
    return {"$defs": levels, "type": "object", "additionalProperties": top}


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JSONSchema(_Form):
    """A schema as OpenAI wraps it."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = ignored()
    strict: bool | None = Field(None, strict=True, description="The schema is always kept.")
    schema_: dict[str, Any] = Field(alias="schema", description="A JSON schema.")


class TextFormat(_Form):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(_Form):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Form):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]
Choice = Annotated[str, Field(min_length=1)]


class StructuredOutputs(_Form):
    """Exactly one of the three, by vLLM's names."""

    json_: dict[str, Any] | None = Field(None, alias="json", description="A JSON schema.")
    regex: str | None = Field(None, min_length=1, description="A regular expression.")
    choice: list[Choice] | None = Field(
        None, min_length=1, max_length=256, description="The text is one of these."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> StructuredOutputs:
        given = [kind for kind, source in self.sources() if source is not None]
        if len(given) != 1:
            raise ParameterError("structured_outputs", given, f"exactly one of {', '.join(KINDS)}")
        return self

    def sources(self) -> list[tuple[Any, Any]]:
        """Each kind and what is given for it."""
        return list(zip(KINDS, (self.json_, self.regex, self.choice), strict=True))


def structure(format: ResponseFormat | None, outputs: StructuredOutputs | None) -> Structure | None:
    """The form that a request asks for; None for any text.

    Raises:
        ParameterError: it asks for two.
    """
    free = format is None or isinstance(format, TextFormat)
    if outputs is not None:
        if not free:
            raise ParameterError("structured_outputs", "…", "left out with response_format")
        kind, source = next(pair for pair in outputs.sources() if pair[1] is not None)
        return Structure(kind, source, "structured_outputs")
    if free:
        return None
    source = format.json_schema.schema_ if isinstance(format, SchemaFormat) else any_object()
    return Structure("json", source, "response_format")
