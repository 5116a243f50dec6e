"""The settings of this package's parts; `serving.config` adds its own. (Lesson 09.)"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _names(value: object) -> object:
    """Names between commas as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class GuardSettings(BaseModel):
    """Logs; all of it is in `Config`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    log_format: Literal["auto", "json", "text", "off"] = Field(
        "auto",
        description="a line a request: json, text, off, or auto (text in a terminal, else json)",
    )
    log_file: str = Field(
        "", description="the file that these lines are added to; none: standard error"
    )
    log_prompts: bool = Field(False, description="log what is asked and answered, too")
