"""The kinds of parameters in OpenAI's requests: served, not supported, ignored.

Generation parameters, their ranges and OpenAI's names for them come from
`GenerationSettings`. A parameter that is not offered may be null, or a value that changes
nothing; anything else is refused by a message that says so.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)

from helpers.settings import openai_fields
from system.errors import ParameterError

NOT_SUPPORTED, IGNORED = "Not supported here", "Taken and ignored"


def _whole(value: object) -> object:
    """True is not 1, "1" is not 1."""
    if isinstance(value, bool | str):
        raise ValueError(f"{type(value).__name__} given for a number")
    return value


def whole(low: int, high: int) -> Any:
    """The type of a whole number from `low` to `high`, or null."""
    return Annotated[int, Field(ge=low, le=high), BeforeValidator(_whole)] | None


def off(*neutral: Any) -> Any:
    """The type of a parameter that is not offered.

    Args:
        *neutral: the values besides null that change nothing; they are taken.
    """

    def check(value: object, info: ValidationInfo) -> object:
        same = (isinstance(value, bool) == isinstance(n, bool) and value == n for n in neutral)
        if value is None or any(same):
            return None
        also = "".join(f" or {n!r}" for n in neutral)
        raise ParameterError(str(info.field_name), value, f"null{also}: not supported here")

    return Annotated[Any, BeforeValidator(check), WithJsonSchema({"enum": [None, *neutral]})]


def not_offered(why: str = "") -> Any:
    """The field of a parameter that is `off`."""
    return Field(None, description=f"{NOT_SUPPORTED}{': ' + why if why else ''}.")


def ignored() -> Any:
    """The field of a parameter that is taken and changes nothing."""
    return Field(None, description=f"{IGNORED}.")


def _sampling_fields() -> dict[str, Any]:
    """Each generation parameter by OpenAI's name, with the schema of its field.

    The values are checked where all are: by `GenerationSettings`.
    """
    given: dict[str, Any] = dict(openai_fields())
    schemas = create_model("Sampling", **given).model_json_schema()["properties"]
    fields = {}
    for name, schema in schemas.items():
        shape = {k: v for k, v in schema.items() if k in ("anyOf", "type", "minimum", "maximum")}
        field = Field(None, description=schema["description"])
        fields[name] = (Annotated[Any, WithJsonSchema(shape)], field)
    return fields


Sampling: Any = create_model(
    "_Sampling",
    __config__=ConfigDict(extra="forbid", protected_namespaces=()),
    **_sampling_fields(),
)
