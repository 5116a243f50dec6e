"""The server's configuration: from the environment and `.env`, checked at the start."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from helpers.environment import DEFAULT_MODEL, ROOT


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line for the person who set it."""


class Config(BaseSettings):
    """Every setting, its default and its range; the variable's name is the field's in capitals."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env", extra="ignore", env_ignore_empty=True, frozen=True
    )

    model_name: str = Field(DEFAULT_MODEL, description="a shipped model, a folder or a hub id")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, or -1, 0, 1 …")
    host: str = Field("127.0.0.1", description="the address to listen on; 0.0.0.0 is all of them")
    port: int = Field(5000, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    debug: bool = Field(False, description="log every request")
    max_length_limit: int = Field(
        200, ge=2, le=1_000_000, description="most tokens a request may have, prompt and new"
    )
    default_max_length: int = Field(
        50, ge=2, le=1_000_000, description="tokens in all where a request names no length"
    )
    default_temperature: float = Field(
        0.7, ge=0, le=2, description="temperature where a request names none"
    )
    slots: int = Field(32, ge=1, le=1024, description="texts that are written at the same time")
    queue_length: int = Field(64, ge=0, le=1024, description="texts that may wait for a slot")
    request_timeout: float = Field(
        60, gt=0, le=86_400, description="seconds a request may take, waiting included"
    )
    max_body_bytes: int = Field(
        1_048_576, ge=1024, le=2**30, description="largest request body in bytes"
    )
    batching: Literal["step", "static"] = Field(
        "step", description="step (requests join at every step) or static (whole batches)"
    )
    prefill_chunk: int = Field(
        128, ge=1, le=65_536, description="most prompt tokens computed between two steps"
    )
    drain_seconds: float = Field(
        30, ge=0, le=3600, description="how long a shutdown waits for running requests"
    )

    @field_validator("model_name", "device", "host")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("blank")
        return value.strip()

    @model_validator(mode="after")
    def _lengths_fit(self) -> Config:
        if self.default_max_length > self.max_length_limit:
            raise ValueError(
                f"DEFAULT_MAX_LENGTH={self.default_max_length} is not allowed: it must not be "
                f"larger than MAX_LENGTH_LIMIT={self.max_length_limit}"
            )
        return self

    @property
    def threads(self) -> int:
        """Threads that answer HTTP: enough that /health never waits behind texts."""
        return self.slots + self.queue_length + 32 + 8


def load_config(**changes: Any) -> Config:
    """The configuration; `changes` that are not None win over the environment.

    Raises:
        ConfigError: a value that cannot be used, in one line.
    """
    try:
        return Config(**{name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    """The first mistake as one line: NAME=value is not allowed: NAME must be …."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    schema = Config.model_json_schema()["properties"][name]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if "enum" in schema:
        must = " or ".join(schema["enum"])
    elif schema["type"] == "boolean":
        must = "true or false"
    elif low is not None:
        whole = "a whole number" if schema["type"] == "integer" else "a number"
        above = "above" if "exclusiveMinimum" in schema else "from"
        must = f"{whole} {above} {low} to {schema['maximum']}"
    else:
        must = "text that is not blank"
    shown = repr(first["input"])[:60]
    return (
        f"{name.upper()}={shown} is not allowed: {name.upper()} must be {must} "
        f"({schema['description']})"
    )
