"""The settings of this package's parts; `serving.config` adds its own. (Lesson 09.)"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _names(value: Any) -> Any:
    """Names between commas as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def hashed(key: str) -> str:
    """The SHA-256 hash of an API key in hexadecimal; `sha256:…` is one already.

    Raises:
        ValueError: it is no key; the message says what one is, and never the key.
    """
    if re.fullmatch(r"sha256:[0-9a-f]{64}", key):
        return key.removeprefix("sha256:")
    if not re.fullmatch(r"[!-+\--~]{16,256}", key) or key.startswith("sha256:"):
        raise ValueError(KEYS)
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = "a key of 16 to 256 characters (no spaces, commas or accents), or sha256: and its hash"
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(map(hashed, _names(value)))),
    Field(json_schema_extra={"must": KEYS}),
]


SECRET = ("api_keys",)  # settings whose values are never shown


class GuardSettings(BaseModel):
    """Logs, keys, limits and the response cache; all of it is in `Config`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    log_format: Literal["auto", "json", "text", "off"] = Field(
        "auto",
        description="a line a request: json, text, off, or auto (text in a terminal, else json)",
    )
    log_file: str = Field(
        "", description="the file that these lines are added to; none: standard error"
    )
    log_prompts: bool = Field(False, description="log what is asked and answered, too")
    api_keys: Keys = Field(
        (), description="keys that clients must send, between commas; no key: all may"
    )
    api_keys_file: str = Field(
        "", description="a file of such keys, one a line; # begins a comment"
    )
    requests_per_minute: int = Field(
        6000,
        ge=0,
        le=1_000_000,
        description="requests a minute and client; 0: any number; on loopback off unless set",
    )
    tokens_per_minute: int = Field(
        1_000_000,
        ge=0,
        le=1_000_000_000,
        description="tokens a minute and client; 0: any number; on loopback off unless set",
    )
    limits_storage: str = Field(
        "memory://", description="where limits are counted; redis://host:6379/0 for several servers"
    )
    trusted_proxy: str = Field(
        "", description="the address of the proxy whose X-Forwarded-For names the client"
    )
    traces: str = Field(
        "off", description="where traces go: off, console, or an exporter of OpenTelemetry's"
    )
    response_cache_mb: int = Field(
        0, ge=0, le=65_536, description="MiB for answers to deterministic requests; 0 keeps none"
    )
    response_cache_seconds: int = Field(
        3600, ge=1, le=31_536_000, description="how long such an answer is kept"
    )
    response_cache_shared: bool = Field(False, description="answer from the cache across API keys")
