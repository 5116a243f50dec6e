"""The service's settings: from the command line, the environment and `.env`, checked at the start.

In the environment a setting is named LLM_PORT; PORT alone belongs to other software and is
passed over. In `.env`, which is this course's own file, the short name does as well. The
highest rank first: command line, LLM_PORT in the environment, LLM_PORT in `.env`, PORT in
`.env`, the default. MODEL_NAME and DEVICE, which the lessons read too, count in the
environment without the prefix.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from serving.guard.settings import SECRET, GuardSettings, Names
from system.environment import DEFAULT_MODEL, ROOT
from system.textfiles import TextFileError, read_text

PREFIX = "LLM_"
ENV_FILE = ROOT / ".env"
SHARED = ("model_name", "device")  # read without the prefix, too: the lessons name them so


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line for the person who set it."""


class Config(GuardSettings):
    """Every setting, its default and its range; the variable is LLM_ and the name in capitals."""

    model_name: str = Field(DEFAULT_MODEL, description="a shipped model, a folder or a hub id")
    models: Names = Field(
        (), description="more models, between commas, that are loaded when a request names them"
    )
    models_memory_mb: int = Field(
        4096, ge=1, le=16_777_216, description="MiB that all loaded models may take, as computed"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, or -1, 0, 1 …")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto", description="number format of the weights; auto takes what suits the device"
    )
    engine: Literal["torch", "ctranslate2"] = Field(
        "torch", description="what computes: torch, or ctranslate2 (faster on CPUs, can do less)"
    )
    engine_cache: str = Field(
        "", description="folder for models converted for ctranslate2; none: the user's cache"
    )
    host: str = Field("127.0.0.1", description="the address to listen on; 0.0.0.0 is all of them")
    port: int = Field(5000, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    allowed_hosts: Names = Field(
        (), description="more names that this server may be called by, between commas; * is any"
    )
    cors_origins: Names = Field(
        (), description="pages elsewhere that may call it, such as https://example.org; * is any"
    )
    debug: bool = Field(False, description="log more, requests for /health and /metrics as well")
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
    batching: Literal["continuous", "static"] = Field(
        "continuous",
        description="continuous (requests join at every step) or static (whole batches)",
    )
    prefill_chunk: int = Field(
        128, ge=1, le=65_536, description="most prompt tokens computed between two steps"
    )
    prefix_cache_mb: int = Field(
        64, ge=0, le=1_048_576, description="MiB for beginnings that prompts share; 0 keeps none"
    )
    drain_seconds: float = Field(
        30, ge=0, le=3600, description="how long a shutdown waits for running requests"
    )
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("model_name", "device", "host")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("blank")
        return value.strip()

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @model_validator(mode="after")
    def _lengths_fit(self) -> Config:
        if self.default_max_length > self.max_length_limit:
            raise ValueError(
                f"{PREFIX}DEFAULT_MAX_LENGTH={self.default_max_length} is not allowed: it must "
                f"not be larger than {PREFIX}MAX_LENGTH_LIMIT={self.max_length_limit}"
            )
        return self

    @property
    def way_of_batching(self) -> str:
        """How the engine batches; ctranslate2's way is dynamic: texts leave, but cannot join."""
        return "dynamic" if self.engine == "ctranslate2" else self.batching

    @property
    def threads(self) -> int:
        """Threads that answer HTTP: enough that /health never waits behind texts."""
        return self.slots + self.queue_length + 32 + 8

    @property
    def sources(self) -> dict[str, str]:
        """Name → where its value comes from, of every setting that is not the default."""
        return self._sources


def _layers(changes: Mapping[str, Any], env_file: Path) -> Iterator[tuple[str, str, Any]]:
    """Every setting that is set somewhere, (name, source, value), the highest rank first."""
    file = dotenv_values(stream=StringIO(read_text(env_file))) if env_file.is_file() else {}
    for name in Config.model_fields:
        short = name.upper()
        long = PREFIX + short
        if changes.get(name) is not None:
            yield name, f"--{name.replace('model_name', 'model')}", changes[name]
        from_file = os.environ.get(long) == file.get(long)  # the course copies `.env` to there
        if os.environ.get(long) and not from_file:
            yield name, f"{long} in the environment", os.environ[long]
        if file.get(long):
            yield name, f"{long} in .env", file[long]
        if name in SHARED and os.environ.get(short) and os.environ[short] != file.get(short):
            yield name, f"{short} in the environment", os.environ[short]
        if file.get(short):
            yield name, f"{short} in .env", file[short]


def load_config(env_file: Path | None = None, **changes: Any) -> Config:
    """The configuration; `changes` that are not None win over the environment.

    Args:
        env_file: read in place of the `.env` beside the README.
        **changes: settings by name.

    Raises:
        ConfigError: a value that cannot be used, in one line.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    try:
        for name, source, value in _layers(changes, env_file or ENV_FILE):
            if name not in values:
                values[name], sources[name] = value, source
    except TextFileError as error:
        raise ConfigError(str(error)) from None
    if unknown := set(changes) - set(Config.model_fields):
        raise ConfigError(f"there is no setting {sorted(unknown)[0]}")
    try:
        config = Config(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, sources)) from None
    config._sources.update(sources)
    return config


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    """The first mistake as one line: NAME=value is not allowed: NAME must be …."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    schema = Config.model_json_schema()["properties"][name]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if "must" in schema:
        must = schema["must"]
    elif "enum" in schema:
        must = " or ".join(schema["enum"])
    elif schema["type"] == "boolean":
        must = "true or false"
    elif low is not None:
        whole = "a whole number" if schema["type"] == "integer" else "a number"
        above = "above" if "exclusiveMinimum" in schema else "from"
        must = f"{whole} {above} {low} to {schema['maximum']}"
    else:
        must = "text that is not blank"
    variable = sources[name].removesuffix(" in the environment").removesuffix(" in .env")
    place = " (in .env)" if sources[name].endswith(".env") else ""
    shown = "…" if name in SECRET else repr(first["input"])[:60]
    return (
        f"{variable}={shown}{place} is not allowed: {variable} must be {must} "
        f"({schema['description']})"
    )
